"""What people read, in English and Russian."""

from __future__ import annotations

from collections.abc import Mapping

Texts = Mapping[str, str]

ENGLISH: Texts = {
    "language": "en",
    "title": "Files",
    "top": "Files",
    "name": "Name",
    "size": "Size",
    "modified": "Modified",
    "empty": "This folder is empty.",
    "drop": "Drop files here to upload them.",
    "up": "The folder above",
    "download-folder": "Download as zip",
    "upload-files": "Upload files",
    "upload-folder": "Upload a folder",
    "no-script": "Uploading from this page needs JavaScript.",
    "new-folder": "New folder",
    "folder-name": "Name of the new folder",
    "create": "Create",
    "select": "Select {}",
    "selected": "With what is selected:",
    "move-to": "New name, or a folder with / at the end",
    "move": "Move or rename",
    "delete": "Delete",
    "cancel": "Cancel",
    "delete-title": "Delete for good?",
    "delete-what": "This cannot be undone. Folders are deleted with all that is in them.",
    "nothing": "Nothing is selected",
    "where": "Where you are",
    "page": "Page {} of {}",
    "earlier": "Earlier",
    "later": "Later",
    "link": "link",
    "replace": "These are here already and will be replaced: {}",
    "uploading": "Uploading {name}: {done} of {all}",
    "uploaded": "Uploaded: {}",
    "broken": "The connection broke. Try again.",
    "back": "Back",
    "error-title": "That did not work",
    "not-found": "There is no “{}” here.",
    "forbidden": "The system does not allow that for “{}”.",
    "read-only": "This file browser only shows files.",
    "read-only-volume": "The volume is mounted read-only, so “{}” cannot be changed.",
    "exists": "“{}” exists already. Choose another name.",
    "folder-exists": "“{}” is a folder. Choose another name for the file.",
    "into-itself": "A folder cannot be moved into itself.",
    "other-volume": "“{}” cannot be moved to another volume. Download it and upload it there.",
    "busy": "“{}” is in use. A volume's own folder can be neither moved nor deleted.",
    "long-name": "The name “{}” is too long. Choose a shorter one.",
    "bad-name": "“{}” is not a name. Use one without slashes that is neither “.” nor “..”.",
    "full": "There is no room left on the volume. Delete something and try again.",
    "system-error": "The system says: {}.",
    "other-host": "“{}” is not a name of this page. Open it as localhost, or allow it by --name.",
    "other-site": "Another site asked for this change, so it was not made.",
    "nothing-selected": "Nothing is selected. Go back and select what you mean.",
    "many-to-one": "Several things need a folder to go to. Write “{}/” for one.",
    "bad-request": "The request is not understood. Reload the page and try again.",
    "no-length": "The upload does not say how long it is: send Content-Length.",
    "too-long": "The form is too long. Select less at a time.",
    "cut-off": "The upload of “{}” broke off. Nothing was changed.",
}

RUSSIAN: Texts = {
    "language": "ru",
    "title": "Файлы",
    "top": "Файлы",
    "name": "Имя",
    "size": "Размер",
    "modified": "Изменён",
    "empty": "В этой папке пусто.",
    "drop": "Перетащите файлы сюда, чтобы загрузить их.",
    "up": "Папка выше",
    "download-folder": "Скачать в zip",
    "upload-files": "Загрузить файлы",
    "upload-folder": "Загрузить папку",
    "no-script": "Для загрузки с этой страницы нужен JavaScript.",
    "new-folder": "Новая папка",
    "folder-name": "Имя новой папки",
    "create": "Создать",
    "select": "Выбрать {}",
    "selected": "С выбранным:",
    "move-to": "Новое имя или папка с / в конце",
    "move": "Переместить",
    "delete": "Удалить",
    "cancel": "Отмена",
    "delete-title": "Удалить насовсем?",
    "delete-what": "Отменить это нельзя. Папки удаляются со всем содержимым.",
    "nothing": "Ничего не выбрано",
    "where": "Где вы находитесь",
    "page": "Страница {} из {}",
    "earlier": "Назад",
    "later": "Вперёд",
    "link": "ссылка",
    "replace": "Это здесь уже есть и будет заменено: {}",
    "uploading": "Загружается {name}: {done} из {all}",
    "uploaded": "Загружено: {}",
    "broken": "Связь прервалась. Попробуйте ещё раз.",
    "back": "Назад",
    "error-title": "Не получилось",
    "not-found": "Здесь нет «{}».",
    "forbidden": "Система не разрешает это для «{}».",
    "read-only": "Здесь файлы можно только смотреть.",
    "read-only-volume": "Том подключён только для чтения, «{}» нельзя изменить.",
    "exists": "«{}» уже есть. Выберите другое имя.",
    "folder-exists": "«{}» — это папка. Выберите для файла другое имя.",
    "into-itself": "Папку нельзя переместить в неё саму.",
    "other-volume": "«{}» нельзя переместить на другой том. Скачайте и загрузите туда.",
    "busy": "«{}» используется. Папку самого тома нельзя ни переместить, ни удалить.",
    "long-name": "Имя «{}» слишком длинное. Выберите покороче.",
    "bad-name": "«{}» — не имя. Нужно имя без косой черты, не «.» и не «..».",
    "full": "На томе кончилось место. Удалите что-нибудь и попробуйте ещё раз.",
    "system-error": "Система сообщает: {}.",
    "other-host": "Имя «{}» не разрешено. Откройте страницу как localhost или укажите --name.",
    "other-site": "Это изменение запросил другой сайт, поэтому оно не сделано.",
    "nothing-selected": "Ничего не выбрано. Вернитесь и выберите нужное.",
    "many-to-one": "Несколько файлов можно переместить только в папку. Напишите «{}/».",
    "bad-request": "Запрос непонятен. Обновите страницу и попробуйте ещё раз.",
    "no-length": "Не указана длина загружаемого: передайте Content-Length.",
    "too-long": "Форма слишком длинная. Выберите меньше за раз.",
    "cut-off": "Загрузка «{}» прервалась. Ничего не изменилось.",
}


def choose(accept_language: str) -> Texts:
    """The available language that a browser prefers; English where it names none of them."""
    best, language = 0.0, ENGLISH
    for item in accept_language.split(","):
        tag, _, rest = item.strip().partition(";")
        known = {"en": ENGLISH, "ru": RUSSIAN}.get(tag.strip().lower().split("-")[0])
        try:
            weight = float(rest.strip().removeprefix("q=")) if rest else 1.0
        except ValueError:
            continue
        if known is not None and weight > best:
            best, language = weight, known
    return language
