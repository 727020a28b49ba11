"use strict";
// Pictures decoded, and what is computed from them.
const ORANGE = [230, 159, 0], BELOW = [0, 114, 178], ABOVE = [213, 94, 0];
const EIGHTH = 32; // of 256 steps of grey: the difference at full colour
const between = (low, value, high) => Math.min(high, Math.max(low, value));

function canvasOf(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

async function decoded(picture) {
  const image = new Image();
  image.src = "data:image/png;base64," + picture;
  await image.decode();
  const canvas = canvasOf(image.width, image.height);
  canvas.getContext("2d", { willReadFrequently: true }).drawImage(image, 0, 0);
  return canvas;
}

const pixels = (canvas) => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);

// a canvas whose pixels are `colour(index of the red value)`, an array of red, green, blue and opacity
function painted(width, height, colour) {
  const canvas = canvasOf(width, height), context = canvas.getContext("2d"), data = context.createImageData(width, height);
  for (let i = 0; i < data.data.length; i += 4) data.data.set(colour(i), i);
  context.putImageData(data, 0, 0);
  return canvas;
}

function differenceOf(canvas, reference) {
  const a = pixels(canvas).data, b = pixels(reference).data;
  return painted(canvas.width, canvas.height, (i) => {
    const share = between(-1, (a[i] - b[i]) / EIGHTH, 1), hue = share < 0 ? BELOW : ABOVE;
    return [...hue.map((h) => 255 + (h - 255) * Math.abs(share)), 255];
  });
}

function overlayOf(canvas) {
  const values = pixels(canvas).data;
  return painted(canvas.width, canvas.height, (i) => [...ORANGE, values[i]]);
}
