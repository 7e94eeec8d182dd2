// Draws a picture of the world, equal to Python's pixel by pixel (workbench/data/drawing.py and web/pictures.py).

import { smaller } from "./resample.js";

const DARKER = 70; // how much darker stripes and dots are than the wall
const PERIOD = 8; // pixels from one stripe or dot to the next

export function drawer(tables, noise, world) {
  const { size, smooth, radii, noises, paints, shapes, dot } = tables;
  const side = size * smooth;

  function row(sheet, y, first, last, paint) {
    if (y < 0 || y >= side) return;
    for (let x = Math.max(0, first); x <= Math.min(side - 1, last); x++) sheet.set(paint, (y * side + x) * 3);
  }

  function background(sheet, scene) {
    const shade = Array(3).fill(scene.tone - DARKER);
    if (scene.background === "striped") {
      for (let y = scene.noise % PERIOD; y < size; y += PERIOD) {
        for (let line = y * smooth; line <= (y + 3) * smooth; line++) row(sheet, line, 0, side, shade);
      }
    } else if (scene.background === "dotted") {
      for (let y = scene.noise % PERIOD; y < size + PERIOD; y += PERIOD) {
        for (let x = Math.floor(scene.noise / PERIOD) % PERIOD; x < size + PERIOD; x += PERIOD) {
          for (let i = 0; i < dot.length; i += 3) {
            row(sheet, y * smooth + dot[i], x * smooth + dot[i + 1], x * smooth + dot[i + 2], shade);
          }
        }
      }
    }
  }

  function object(sheet, scene) {
    const runs = shapes[scene.kind][radii.indexOf(scene.radius)];
    const fill = world.colours[scene.colour].rgb;
    const [right, down] = [scene.dx * smooth, scene.dy * smooth];
    for (let i = 0; i < runs.length; i += 4) {
      row(sheet, runs[i] + down, runs[i + 1] + right, runs[i + 2] + right, paints[runs[i + 3]] ?? fill);
    }
  }

  // size × size × 3 bytes
  return function draw(scene) {
    const sheet = new Uint8Array(side * side * 3).fill(scene.tone);
    background(sheet, scene);
    object(sheet, scene);
    const pixels = smaller(sheet, side, smooth);
    const start = noises.indexOf(scene.noise) * pixels.length;
    return Uint8ClampedArray.from(pixels, (value, i) => value + noise[start + i]);
  };
}

// Shows a drawn picture on a canvas of its size; the style sheet enlarges it without smoothing.
export function show(canvas, pixels) {
  const side = Math.sqrt(pixels.length / 3);
  canvas.width = canvas.height = side;
  const image = new ImageData(side, side);
  for (let i = 0; i < side * side; i++) {
    image.data.set([pixels[3 * i], pixels[3 * i + 1], pixels[3 * i + 2], 255], 4 * i);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}
