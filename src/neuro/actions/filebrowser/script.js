"use strict";
const tools = document.getElementById("tools");
const list = document.getElementById("list");

function selection() {
  const bar = document.getElementById("selection");
  if (!bar) return;
  const boxes = [...list.querySelectorAll("input[type=checkbox]")];
  const to = document.getElementById("to");
  let proposed = "";
  const show = () => {
    const chosen = boxes.filter((box) => box.checked);
    bar.hidden = chosen.length === 0;
    const name = chosen.length === 1 ? named(chosen[0].value) : "";
    if (to.value === proposed) to.value = proposed = name;
  };
  list.addEventListener("change", show);
  addEventListener("pageshow", show);
  show();
}

function named(value) {
  try { return decodeURIComponent(value); } catch { return ""; }
}

function uploads() {
  const status = document.getElementById("status");
  const progress = document.getElementById("progress");
  const say = (text) => { status.hidden = false; status.textContent = text; };
  const size = (bytes) => {
    const steps = ["B", "kB", "MB", "GB", "TB"];
    let step = 0;
    for (; bytes >= 999.5 && step < steps.length - 1; step++) bytes /= 1000;
    return `${step && bytes < 99.5 ? bytes.toFixed(1) : bytes.toFixed(0)} ${steps[step]}`;
  };
  const send = (file, path, before, all) => new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    request.open("PUT", "./" + path.split("/").map(encodeURIComponent).join("/"));
    request.upload.onprogress = (event) => {
      progress.value = all ? (before + event.loaded) / all : 0;
      say(tools.dataset.uploading.replace("{name}", () => path)
        .replace("{done}", size(before + event.loaded)).replace("{all}", size(all)));
    };
    request.onload = () =>
      request.status < 300 ? done() : failed(request.responseText || tools.dataset.broken);
    request.onerror = () => failed(tools.dataset.broken);
    request.send(file);
  });
  const upload = async (found) => {
    if (!found.length) return;
    const here = new Set([...list.querySelectorAll("input[type=checkbox]")].map((b) => named(b.value)));
    const again = [...new Set(found.map(([, path]) => path.split("/")[0]))].filter((n) => here.has(n));
    if (again.length && !confirm(tools.dataset.replace.replace("{}", () => again.join(", ")))) return;
    const all = found.reduce((sum, [file]) => sum + file.size, 0);
    let before = 0;
    progress.hidden = false;
    try {
      for (const [file, path] of found) {
        await send(file, path, before, all);
        before += file.size;
      }
      say(tools.dataset.uploaded.replace("{}", found.length));
      location.reload();
    } catch (sentence) {
      say(sentence);
      progress.hidden = true;
    }
  };
  for (const input of tools.querySelectorAll("input[type=file]")) {
    input.parentElement.hidden = false;
    input.addEventListener("change", () => {
      upload([...input.files].map((file) => [file, file.webkitRelativePath || file.name]));
      input.value = "";
    });
  }
  for (const hint of document.querySelectorAll(".drop")) hint.hidden = false;
  dropping(upload);
}

function dropping(upload) {
  const over = (event, is) => { event.preventDefault(); document.body.classList.toggle("over", is); };
  addEventListener("dragover", (event) => over(event, true));
  addEventListener("dragleave", (event) => over(event, false));
  addEventListener("drop", async (event) => {
    over(event, false);
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
    const found = [];
    for (const entry of entries) await collect(entry, "", found);
    upload(found);
  });
}

async function collect(entry, above, found) {
  const path = above + entry.name;
  if (entry.isFile) {
    found.push([await new Promise((done, failed) => entry.file(done, failed)), path]);
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!some.length) return;
    for (const child of some) await collect(child, path + "/", found);
  }
}

if (list) selection();
if (tools) uploads();
