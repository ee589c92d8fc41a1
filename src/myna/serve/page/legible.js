// What can't be seen, made visible; and tokens that hold a part of a character.

const SIGNS = new Map([
  [" ", "·"], ["\n", "⏎"], ["\t", "⇥"], ["\r", "␍"], ["\u00a0", "⍽"], ["\u200d", "<ZWJ>"], ["\u200b", "<ZWSP>"], ["\ufeff", "<BOM>"],
]);
const encoder = new TextEncoder();

/** Bytes as two hexadecimal digits each: "F0 9F". */
export const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).toUpperCase().padStart(2, "0")).join(" ");

/** A text in pieces {text, sign}; a piece with `sign` stands for a character that can't be seen. */
export function legible(text) {
  const pieces = [];
  const add = (part, sign) => {
    const last = pieces.at(-1);
    if (last && last.sign === sign) last.text += part;
    else pieces.push({ text: part, sign });
  };
  for (const character of text) {
    if (SIGNS.has(character)) add(SIGNS.get(character), true);
    else if (/^\p{M}$/u.test(character)) add(`◌${character}`, false);
    else if (/^[\p{C}\p{Z}]$/u.test(character)) add(codePoint(character), true);
    else add(character, false);
  }
  return pieces;
}

const codePoint = (character) => `<U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}>`;

/** Bytes as pieces: text where they are UTF-8, else each run of loose bytes as "<F0.9F>". */
export function legibleBytes(bytes) {
  const pieces = [];
  const data = Uint8Array.from(bytes);
  let at = 0;
  while (at < data.length) {
    const length = characterAt(data, at);
    if (length) {
      pieces.push(...legible(new TextDecoder().decode(data.subarray(at, at + length))));
      at += length;
      continue;
    }
    const begin = at;
    while (at < data.length && !characterAt(data, at)) at += 1;
    pieces.push({ text: `<${hex(data.subarray(begin, at)).replaceAll(" ", ".")}>`, sign: true });
  }
  return pieces;
}

/** How many bytes the character has that begins at a place; 0 where none does. */
function characterAt(data, at) {
  const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  for (let length = 1; length <= 4 && at + length <= data.length; length += 1) {
    try {
      strict.decode(data.subarray(at, at + length));
      return length;
    } catch {
      // Not yet whole, or no character.
    }
  }
  return 0;
}

/** The bytes of a token as the completions API writes it: a part of a character is "bytes:\xf0\x9f". */
export function tokenBytes(written) {
  if (!isPart(written)) return encoder.encode(written);
  return Uint8Array.from(written.slice("bytes:".length).matchAll(/\\x([0-9a-f]{2})/g), (match) => Number.parseInt(match[1], 16));
}

/** Whether a token holds a part of a character. */
export const isPart = (written) => /^bytes:(\\x[0-9a-f]{2})+$/.test(written);

/** Pieces as nodes. */
export function nodes(pieces) {
  return pieces.map(({ text, sign }) => {
    if (!sign) return document.createTextNode(text);
    const mark = document.createElement("span");
    mark.className = "sign";
    mark.textContent = text;
    return mark;
  });
}
