// Makes elements. Text is always set as text: nothing that a person or a model writes is ever read as markup.

export function make(tag, options = {}, ...children) {
  const { text, ...attributes } = options;
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

export const byId = (id) => document.getElementById(id);

// A group of radio buttons that look like buttons. The browser gives them arrow keys and one tab stop.
export function choices(place, name, options, chosen, onChange) {
  place.replaceChildren(
    ...options.map(({ value, label, picture, hint }) => {
      const input = make("input", { type: "radio", name, value, class: "choice-input" });
      input.checked = value === chosen;
      input.addEventListener("change", () => onChange(value));
      const shown = make("span", { class: "choice-face" }, ...(picture ? [picture] : []), label);
      return make("label", { class: "choice", title: hint }, input, shown);
    }),
  );
}

export function choose(place, value) {
  for (const input of place.querySelectorAll("input")) input.checked = input.value === value;
}
