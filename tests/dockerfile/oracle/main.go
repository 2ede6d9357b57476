// Answers what BuildKit's own code makes of a Dockerfile: one JSON question a line, one answer a line.
package main

import (
	"bufio"
	"encoding/json"
	"os"
)

type question struct {
	Ask      string            `json:"ask"`
	Text     string            `json:"text"`
	Env      []string          `json:"env"`
	Escape   string            `json:"escape"`
	Paths    []string          `json:"paths"`
	Target   string            `json:"target"`
	Args     map[string]string `json:"args"`
	Platform string            `json:"platform"`
	Images   map[string]string `json:"images"`
	Below    []string          `json:"below"`
	Include  []string          `json:"include"`
	Exclude  []string          `json:"exclude"`
}

var answers = map[string]func(question) (any, error){
	"parse":  parse,
	"expand": expand,
	"ignore": ignore,
	"glob":   glob,
	"plan":   plan,
	"copy":   copyFiles,
}

func main() {
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var asked question
		if err := json.Unmarshal(line, &asked); err != nil {
			panic(err)
		}
		value, err := answers[asked.Ask](asked)
		answer := map[string]any{"value": value}
		if err != nil {
			answer = map[string]any{"error": err.Error(), "line": lineOf(err)}
		}
		if err := out.Encode(answer); err != nil {
			panic(err)
		}
	}
}
