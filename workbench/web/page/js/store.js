// What a visitor's browser keeps from one visit to the next. Where it keeps nothing, the page works all the same.

const PREFIX = "safety-mirage.";

export function load(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + name)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

export function save(name, value) {
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // private windows, full disks
  }
}
