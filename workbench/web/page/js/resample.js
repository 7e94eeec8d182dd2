// Pillow's Lanczos filter for a picture that becomes `factor` times smaller, number by number: it works with whole
// numbers, rounds the weights to 22 bits, and rounds once after the rows and once after the columns.

const BITS = 22;
const LOBES = 3;

const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));
const lanczos = (x) => (x >= -LOBES && x < LOBES ? sinc(x) * sinc(x / LOBES) : 0);
const byte = (sum) => Math.min(255, Math.max(0, Math.floor(sum / 2 ** BITS)));

// For each place of the small picture: where its weights begin in the large one, and the weights.
function weights(length, factor) {
  return Array.from({ length: length / factor }, (_, place) => {
    const centre = (place + 0.5) * factor;
    const first = Math.max(0, Math.trunc(centre - LOBES * factor + 0.5));
    const end = Math.min(length, Math.trunc(centre + LOBES * factor + 0.5));
    const raw = Array.from({ length: end - first }, (_, i) => lanczos((i + first - centre + 0.5) / factor));
    const total = raw.reduce((sum, value) => sum + value, 0);
    return { first, values: raw.map((value) => Math.trunc((value / total) * 2 ** BITS + (value < 0 ? -0.5 : 0.5))) };
  });
}

// Shrinks the rows of a picture of `lines` rows, or the columns of one of `lines` columns, from `length` pixels each.
function shrink(pixels, lines, length, factor, alongRows) {
  const small = length / factor;
  const result = new Uint8Array(lines * small * 3);
  const [step, stride] = alongRows ? [3, length * 3] : [lines * 3, 3]; // from pixel to pixel, from line to line
  const smallStride = alongRows ? small * 3 : 3;
  const table = weights(length, factor);
  for (let line = 0; line < lines; line++) {
    for (let place = 0; place < small; place++) {
      const { first, values } = table[place];
      for (let channel = 0; channel < 3; channel++) {
        let sum = 2 ** (BITS - 1);
        for (let i = 0; i < values.length; i++) {
          sum += pixels[line * stride + (first + i) * step + channel] * values[i];
        }
        result[line * smallStride + place * step + channel] = byte(sum);
      }
    }
  }
  return result;
}

// A square picture of side × side × 3 bytes, `factor` times smaller
export function smaller(pixels, side, factor) {
  const narrow = shrink(pixels, side, side, factor, true);
  return shrink(narrow, side / factor, side, factor, false);
}
