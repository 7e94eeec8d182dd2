// The error correction of QR codes: polynomials over the field of 256 elements (ISO/IEC 18004, section 7.5).

const EXP = new Uint8Array(512);
const LOG = new Uint8Array(256);
for (let i = 0, value = 1; i < 255; i++) {
  EXP[i] = EXP[i + 255] = value;
  LOG[value] = i;
  value = (value << 1) ^ (value & 0x80 ? 0x11d : 0);
}

const times = (a, b) => (a && b ? EXP[LOG[a] + LOG[b]] : 0);

// The product of (x − 2^i) for i below `degree`, without its first coefficient, which is 1
function generator(degree) {
  let result = [1];
  for (let i = 0; i < degree; i++) {
    const shifted = [...result, 0];
    result = shifted.map((value, place) => value ^ (place ? times(result[place - 1], EXP[i]) : 0));
  }
  return result.slice(1);
}

export function correction(data, degree) {
  const divisor = generator(degree);
  const rest = new Array(degree).fill(0);
  for (const value of data) {
    const factor = value ^ rest.shift();
    rest.push(0);
    divisor.forEach((coefficient, i) => (rest[i] ^= times(coefficient, factor)));
  }
  return rest;
}
