// A row of pictures to choose one from: a radio group with one tab stop, and arrow keys from picture to picture.

const STEPS = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 };

function render({ model, el }) {
  const group = document.createElement("div");
  group.className = "workbench-thumbnails";
  group.setAttribute("role", "radiogroup");
  group.setAttribute("aria-label", "pictures");
  el.append(group);

  function choose(index) {
    model.set("place", model.get("first") + index);
    model.save_changes();
  }

  function button({ src, alt }, index) {
    const item = document.createElement("button");
    item.type = "button";
    item.title = alt;
    item.setAttribute("role", "radio");
    const image = document.createElement("img");
    image.alt = alt;
    if (src) image.src = src;
    item.append(image);
    item.addEventListener("click", () => choose(index));
    return item;
  }

  function mark() {
    const chosen = model.get("place") - model.get("first");
    [...group.children].forEach((each, index) => {
      each.setAttribute("aria-checked", String(index === chosen));
      each.tabIndex = index === Math.max(chosen, 0) ? 0 : -1;
    });
  }

  function draw() {
    group.replaceChildren(...model.get("pictures").map(button));
    mark();
  }

  group.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation(); // else the notebook would go to another cell
    const buttons = [...group.children];
    const next = (buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length;
    buttons[next].focus();
    choose(next);
  });

  model.on("change:pictures", draw);
  model.on("change:place", mark);
  draw();
}

export default { render };
