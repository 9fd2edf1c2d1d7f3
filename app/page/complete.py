"""Completion of adapter names while a `<lora:` tag is typed into the prompt."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lorablend.app.library.shelf import Shelf

__all__ = ["completions", "make_completion"]

_MOST = 8  # names, few enough for a list without scrolling

_LIST = """<div hidden><ul id="completion-list" role="listbox" aria-label="Adapters"></ul><p role="status"></p></div>"""

# The text box keeps the focus; its aria-activedescendant tells screen readers which name is selected.
_KEYS = """
if (!window.lorablendCompletion) {
  window.lorablendCompletion = true;
  const place = element.closest("#completion"), pop = element.querySelector("div");
  const list = pop.querySelector("ul"), status = pop.querySelector("p");
  let area = null, requests = 0, active = 0;

  const close = () => {
    requests++;
    pop.hidden = true;
    area?.removeAttribute("aria-activedescendant");
  };
  const begun = () => area.selectionStart !== area.selectionEnd ? null
    : /<lora:([^<>:\\n]*)$/i.exec(area.value.slice(0, area.selectionStart));
  const point = index => {
    active = (index + list.children.length) % list.children.length;
    [...list.children].forEach((item, place) => item.setAttribute("aria-selected", place === active));
    area.setAttribute("aria-activedescendant", list.children[active].id);
  };
  const show = (names, more) => {
    list.replaceChildren(...names.map((name, index) => {
      const item = document.createElement("li");
      item.id = "completion-" + index;
      item.setAttribute("role", "option");
      item.textContent = name;
      return item;
    }));
    status.textContent = more ? `${names.length} of ${names.length + more} adapters; type more to find the others`
      : names.length === 1 ? "1 adapter" : `${names.length} adapters`;
    const block = document.querySelector("#prompt");
    place.style.top = block.offsetTop + block.offsetHeight + "px";
    pop.hidden = false;
    for (const [name, value] of [["autocomplete", "list"], ["haspopup", "listbox"], ["controls", list.id]])
      area.setAttribute("aria-" + name, value);
    point(0);
  };
  const look = async () => {
    const tag = begun();
    if (!tag) return close();
    const number = ++requests;
    let answer = null;
    try { answer = await server.adapter_names(tag[1]); } catch { /* the server is away: no list */ }
    if (number !== requests || document.activeElement !== area) return;
    answer?.names?.length ? show(answer.names, answer.more) : close();
  };
  const choose = name => {
    const tag = begun();
    if (!tag) return close();
    // In a tag that is already closed, only the name is replaced.
    const rest = /^[^<>:\\n]*((?::[^<>\\n]*)?>)/.exec(area.value.slice(area.selectionEnd));
    const kept = rest && rest[1] !== ">" ? rest[1] : "";
    const start = tag.index, end = area.selectionEnd + (rest ? rest[0].length : 0);
    area.setSelectionRange(start, end);
    document.execCommand("insertText", false, `<lora:${name}${kept || ":1>"}`);  // unlike a new value, it can be undone
    close();
  };

  document.addEventListener("input", event => {
    if (!event.target.matches("#prompt textarea")) return;
    area = event.target;
    if (!event.isComposing) look();
  });
  document.addEventListener("keydown", event => {
    if (pop.hidden || event.target !== area || event.isComposing) return;
    if (event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
    if (event.key === "ArrowDown") point(active + 1);
    else if (event.key === "ArrowUp") point(active - 1);
    else if (event.key === "Enter" || event.key === "Tab") choose(list.children[active].textContent);
    else if (event.key === "Escape") close();
    else {
      if (["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) close();
      return;
    }
    event.preventDefault();
    event.stopImmediatePropagation();
  }, true);
  document.addEventListener("focusout", event => { if (event.target === area) close(); });
  pop.addEventListener("mousedown", event => event.preventDefault());  // the text box keeps the focus
  list.addEventListener("click", event => {
    const item = event.target.closest("li");
    if (item) choose(item.textContent);
  });
}
"""


def completions(shelf: Shelf, text: str) -> dict[str, Any]:
    """Names that contain the text, those that begin with it first; `more` is the number of names left out."""
    part = str(text).casefold()
    names = [name for name in shelf.names() if part in name.casefold()]
    names.sort(key=lambda name: not name.casefold().startswith(part))
    return {"names": names[:_MOST], "more": max(len(names) - _MOST, 0)}


def make_completion(shelf: Shelf) -> None:
    """Lay out the list, in the column of the prompt, whose elem_id is "prompt"."""

    def adapter_names(text: str) -> dict[str, Any]:
        return completions(shelf, text)

    gr.HTML(_LIST, elem_id="completion", js_on_load=_KEYS, server_functions=[adapter_names])
