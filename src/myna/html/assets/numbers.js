// Numbers as people read them.

const grouped = new Intl.NumberFormat("en");

/** 1234567 → "1,234,567". */
export const whole = (value) => grouped.format(value);

/** 10485760 → "10.5M". */
export function short(value) {
  for (const [size, unit] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "K"]]) {
    if (Math.abs(value) >= size) return `${trimmed(value / size, 1)}${unit}`;
  }
  return trimmed(value, 1);
}

/** At most so many digits after the point, and no zeros at the end. */
export const trimmed = (value, digits) => String(Number(value.toFixed(digits)));

/** 0.4231 → "42.3%". */
export function percent(share) {
  if (share > 0 && share < 0.0001) return "<0.01%";
  return `${(share * 100).toFixed(share < 0.1 ? 2 : 1)}%`;
}

/** "1 token", "2 tokens". */
export const count = (value, one) => `${whole(value)} ${one}${value === 1 ? "" : "s"}`;

/** Seconds as "0.12 s" or "3 min 20 s". */
export function duration(seconds) {
  if (seconds < 10) return `${seconds.toFixed(2)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(seconds % 60)} s`;
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${Math.floor(minutes / 1440)} days`;
}
