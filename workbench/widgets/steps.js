// The browser's own slider over a list of numbers. The chosen number is sent when the slider is released.

function render({ model, el }) {
  const label = document.createElement("label");
  label.style.cssText = "display: flex; align-items: center; gap: 1em; max-width: 40em";
  const slider = document.createElement("input");
  slider.type = "range";
  slider.style.flex = "1";
  const number = document.createElement("output");
  label.append("step", slider, number);
  el.append(label);

  function showNumber() {
    number.value = model.get("steps")[slider.value];
    slider.setAttribute("aria-valuetext", number.value);
  }

  function show() {
    const steps = model.get("steps");
    slider.max = String(steps.length - 1);
    slider.value = String(steps.indexOf(model.get("value")));
    showNumber();
  }

  slider.addEventListener("input", showNumber);
  slider.addEventListener("change", () => {
    model.set("value", model.get("steps")[slider.value]);
    model.save_changes();
  });
  slider.addEventListener("keydown", (event) => event.stopPropagation()); // or the notebook takes the arrow keys
  model.on("change:value", show);
  show();
}

export default { render };
