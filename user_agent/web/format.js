// Numbers, times and paths as people read them.

export function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (count >= 1000 && unit < units.length - 1) {
    count /= 1000;
    unit += 1;
  }
  return `${unit && count < 100 ? count.toFixed(1) : Math.round(count)} ${units[unit]}`;
}

export const counted = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

/** A probability; nothing is called 0 % or 100 % that is not. */
export function percent(p) {
  if (p === null || p === undefined) return "–";
  if (p > 0 && p < 0.001) return "< 0.1 %";
  if (p > 0.999 && p < 1) return "> 99.9 %";
  return `${(100 * p).toFixed(1)} %`;
}

/** A weight between 0 and 1. */
export const share = (weight) => (weight === null || weight === undefined ? "–" : weight.toFixed(2));

/** The smallest and the largest of some weights; empty without any. */
export function shares(weights) {
  const known = weights.filter((weight) => weight !== null && weight !== undefined);
  if (!known.length) return "";
  const [least, most] = [share(Math.min(...known)), share(Math.max(...known))];
  return least === most ? least : `${least}–${most}`;
}

export function seconds(count) {
  if (count === null || count === undefined) return "";
  if (count < 60) return `${count < 10 ? count.toFixed(1) : Math.round(count)} s`;
  return count < 3600 ? `${Math.round(count / 60)} min` : `${(count / 3600).toFixed(1)} h`;
}

/** ISO 8601, or seconds since 1970. */
export function when(time) {
  const date = new Date(typeof time === "number" ? 1000 * time : time);
  return Number.isNaN(date.getTime()) ? "" : date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

/** A message of the agent, which begins and ends in the middle of one. */
export const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;

export const fileName = (path) => path.split(/[\\/]/).pop();
