// QR codes of up to 213 bytes: bytes alone, versions 1 to 10, error correction M (ISO/IEC 18004).

import { correction } from "./reed_solomon.js";

// By version from 1 on: all codewords, those of correction in each block, blocks, where alignment patterns lie
const VERSIONS = [
  [26, 10, 1, []],
  [44, 16, 1, [6, 18]],
  [70, 26, 1, [6, 22]],
  [100, 18, 2, [6, 26]],
  [134, 24, 2, [6, 30]],
  [172, 16, 4, [6, 34]],
  [196, 18, 4, [6, 22, 38]],
  [242, 22, 4, [6, 24, 42]],
  [292, 22, 5, [6, 26, 46]],
  [346, 26, 5, [6, 28, 50]],
];
const MASKS = [
  (x, y) => (x + y) % 2,
  (x, y) => y % 2,
  (x) => x % 3,
  (x, y) => (x + y) % 3,
  (x, y) => (Math.floor(x / 3) + Math.floor(y / 2)) % 2,
  (x, y) => ((x * y) % 2) + ((x * y) % 3),
  (x, y) => (((x * y) % 2) + ((x * y) % 3)) % 2,
  (x, y) => (((x + y) % 2) + ((x * y) % 3)) % 2,
];

const bits = (value, length) => Array.from({ length }, (_, i) => (value >>> (length - 1 - i)) & 1);

// The bytes with their header, filled up, in codewords
function codewords(bytes, version, capacity) {
  const stream = [0, 1, 0, 0, ...bits(bytes.length, version < 10 ? 8 : 16), ...[...bytes].flatMap((b) => bits(b, 8))];
  stream.push(...new Array(Math.min(4, capacity * 8 - stream.length)).fill(0));
  while (stream.length % 8) stream.push(0);
  const words = [];
  for (let i = 0; i < stream.length; i += 8) words.push(parseInt(stream.slice(i, i + 8).join(""), 2));
  for (let fill = 0xec; words.length < capacity; fill ^= 0xec ^ 0x11) words.push(fill);
  return words;
}

// Blocks with their correction, taken in turns; the last blocks may be one longer
function interleaved(words, [all, corrected, blocks]) {
  const short = Math.floor(all / blocks) - corrected;
  const long = all % blocks;
  const parts = [];
  for (let i = 0, start = 0; i < blocks; i++) {
    const length = short + (i >= blocks - long ? 1 : 0);
    parts.push(words.slice(start, (start += length)));
  }
  const checks = parts.map((part) => correction(part, corrected));
  const inTurn = (lists) =>
    Array.from({ length: Math.max(...lists.map((list) => list.length)) }, (_, i) =>
      lists.filter((list) => i < list.length).map((list) => list[i]),
    ).flat();
  return [...inTurn(parts), ...inTurn(checks)];
}

// A BCH code: `value` followed by its remainder
function withRemainder(value, polynomial, length) {
  let rest = value;
  for (let i = 0; i < length; i++) rest = (rest << 1) ^ ((rest >>> (length - 1)) * polynomial);
  return (value << length) | rest;
}

function grid(version, positions) {
  const side = 17 + 4 * version;
  const dark = Array.from({ length: side }, () => new Array(side).fill(0));
  const fixed = Array.from({ length: side }, () => new Array(side).fill(false));
  const set = (x, y, value) => {
    if (x < 0 || y < 0 || x >= side || y >= side) return;
    dark[y][x] = Number(value);
    fixed[y][x] = true;
  };
  const rings = (x, y, radius, isDark) => {
    for (let dy = -radius; dy <= radius; dy++) {
      for (let dx = -radius; dx <= radius; dx++) set(x + dx, y + dy, isDark(Math.max(Math.abs(dx), Math.abs(dy))));
    }
  };
  for (let i = 0; i < side; i++) {
    set(6, i, i % 2 === 0);
    set(i, 6, i % 2 === 0);
  }
  for (const [x, y] of [[3, 3], [side - 4, 3], [3, side - 4]]) rings(x, y, 4, (d) => d !== 2 && d !== 4);
  const last = positions.at(-1);
  for (const x of positions) {
    for (const y of positions) {
      const isFinder = (x === 6 && y === 6) || (x === 6 && y === last) || (x === last && y === 6);
      if (!isFinder) rings(x, y, 2, (d) => d !== 1);
    }
  }
  return { side, dark, fixed, set };
}

// Which mask was used, and in large codes the version: written twice each
function formatInto({ side, set }, version, mask) {
  const format = withRemainder(mask, 0x537, 10) ^ 0x5412; // correction M is 00
  const bit = (i) => (format >>> i) & 1;
  for (let i = 0; i <= 5; i++) set(8, i, bit(i));
  set(8, 7, bit(6));
  set(8, 8, bit(7));
  set(7, 8, bit(8));
  for (let i = 9; i < 15; i++) set(14 - i, 8, bit(i));
  for (let i = 0; i < 8; i++) set(side - 1 - i, 8, bit(i));
  for (let i = 8; i < 15; i++) set(8, side - 15 + i, bit(i));
  set(8, side - 8, 1);
  if (version < 7) return;
  const number = withRemainder(version, 0x1f25, 12);
  for (let i = 0; i < 18; i++) {
    const [a, b] = [side - 11 + (i % 3), Math.floor(i / 3)];
    set(a, b, (number >>> i) & 1);
    set(b, a, (number >>> i) & 1);
  }
}

// From the right edge in pairs of columns, up and down in turns
function fill({ side, dark, fixed }, stream, mask) {
  let i = 0;
  for (let right = side - 1; right >= 1; right -= 2) {
    if (right === 6) right = 5;
    for (let step = 0; step < side; step++) {
      for (const x of [right, right - 1]) {
        const y = ((right + 1) & 2) === 0 ? side - 1 - step : step;
        if (fixed[y][x]) continue;
        dark[y][x] = (stream[i++] ?? 0) ^ (MASKS[mask](x, y) === 0 ? 1 : 0);
      }
    }
  }
}

// How hard a code is to read: long runs, blocks, patterns like a finder's, too much of one colour
function penalty({ side, dark }) {
  const columns = dark[0].map((_, x) => dark.map((row) => row[x]));
  let sum = 0;
  for (const line of [...dark, ...columns].map((values) => values.join(""))) {
    for (const run of line.match(/0+|1+/gu)) if (run.length >= 5) sum += run.length - 2;
    for (const found of ["00001011101", "10111010000"]) sum += 40 * (line.split(found).length - 1);
  }
  for (let y = 0; y + 1 < side; y++) {
    for (let x = 0; x + 1 < side; x++) {
      const four = dark[y][x] + dark[y][x + 1] + dark[y + 1][x] + dark[y + 1][x + 1];
      if (four % 4 === 0) sum += 3;
    }
  }
  const share = dark.flat().reduce((count, value) => count + value, 0) / side ** 2;
  return sum + 10 * Math.floor(Math.abs(share - 0.5) * 20);
}

// A text as rows of 0 and 1 (dark), or null if it is too long
export function qr(text) {
  const bytes = new TextEncoder().encode(text);
  const fits = VERSIONS.findIndex(
    ([all, corrected, blocks], i) => bytes.length + (i < 9 ? 2 : 3) <= all - corrected * blocks,
  );
  if (fits < 0) return null;
  const [all, corrected, blocks, positions] = VERSIONS[fits];
  const words = codewords(bytes, fits + 1, all - corrected * blocks);
  const stream = interleaved(words, VERSIONS[fits]).flatMap((word) => bits(word, 8));
  const drawn = MASKS.map((_, mask) => {
    const code = grid(fits + 1, positions);
    formatInto(code, fits + 1, mask);
    fill(code, stream, mask);
    return code;
  });
  return drawn.reduce((best, code) => (penalty(code) < penalty(best) ? code : best)).dark;
}

// Draws a code on a canvas with the white margin that scanners need
export function drawQr(canvas, text) {
  const rows = qr(text);
  canvas.hidden = rows === null;
  if (rows === null) return;
  const margin = 4;
  canvas.width = canvas.height = rows.length + 2 * margin;
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.fillStyle = "#000";
  rows.forEach((row, y) => row.forEach((dark, x) => dark && pen.fillRect(x + margin, y + margin, 1, 1)));
}
