// The picture, and the controls that draw another one.

import { byId, choices, choose, make } from "./dom.js";
import { show } from "./drawing.js";

const SIZES = ["small", "middle", "large"];
const pick = (list) => list[Math.floor(Math.random() * list.length)];

export function openPicture({ world, pictures, state, draw }, changed) {
  const { scene } = state;
  const set = (name) => (value) => {
    scene[name] = value;
    changed();
  };

  function thumbnail(kind) {
    const canvas = make("canvas", { class: "thumbnail", "aria-hidden": "true" });
    show(canvas, draw({ ...scene, kind, colour: "blue", background: "plain", dx: 0, dy: 0 }));
    return canvas;
  }

  function swatch(colour) {
    const dot = make("span", { class: "dot", "aria-hidden": "true" });
    dot.style.background = `rgb(${world.colours[colour].rgb.join()})`;
    return dot;
  }

  const options = (names, picture) => names.map((value) => ({ value, label: value, picture: picture?.(value) }));
  const drawKinds = () =>
    choices(byId("kinds"), "kind", options(Object.keys(world.kinds), thumbnail), scene.kind, set("kind"));
  byId("change").addEventListener("toggle", drawKinds, { once: true }); // not while the first answer is awaited
  choices(byId("colours"), "colour", options(Object.keys(world.colours), swatch), scene.colour, set("colour"));
  choices(byId("backgrounds"), "background", options(world.backgrounds), scene.background, set("background"));
  const sizes = pictures.radii.map((radius, i) => ({ value: String(radius), label: SIZES[i] }));
  choices(byId("radii"), "radius", sizes, String(scene.radius), (value) => set("radius")(Number(value)));
  for (const name of ["dx", "dy"]) byId(name).addEventListener("input", () => set(name)(Number(byId(name).value)));
  byId("grain").addEventListener("click", () => {
    const next = (pictures.noises.indexOf(scene.noise) + 1) % pictures.noises.length;
    set("noise")(pictures.noises[next]);
  });

  return {
    show: () => {
      for (const [id, name] of [["kinds", "kind"], ["colours", "colour"], ["backgrounds", "background"]]) {
        choose(byId(id), scene[name]);
      }
      choose(byId("radii"), String(scene.radius));
      byId("dx").value = scene.dx;
      byId("dy").value = scene.dy;
      show(byId("picture"), draw(scene));
      const { name } = world.kinds[scene.kind];
      const colour = world.colours[scene.colour].name;
      byId("picture").setAttribute("aria-label", `a ${scene.colour} ${scene.kind} on a ${scene.background} wall`);
      byId("caption").textContent = `a ${scene.colour} ${scene.kind}: “${colour} ${name}”`;
    },
    surprise: () =>
      Object.assign(scene, {
        kind: pick(Object.keys(world.kinds)),
        colour: pick(Object.keys(world.colours)),
        background: pick(world.backgrounds),
        dx: Math.floor(Math.random() * 9) - 4,
        dy: Math.floor(Math.random() * 9) - 4,
        radius: pick(pictures.radii),
        tone: 205 + Math.floor(Math.random() * 35),
        noise: pick(pictures.noises),
      }),
  };
}
