// From what a user gives to something that can be sent: files by their endings, and recordings as WAV.

import { Told } from "./api.js";
import { MODALITIES, ONE } from "./words.js";

const ENDINGS = {
  image: "png jpg jpeg webp gif bmp tif tiff avif".split(" "),
  audio: "wav flac mp3 ogg oga opus aiff aif au caf m4a mp4 webm mov mkv".split(" "),
  point_cloud: "npy npz ply obj off glb stl xyz pts".split(" "),
};
const LONGEST_RECORDING_MS = 20_000;
const RATE_HZ = 48_000; // what CLAP hears at; others resample

export const accepted = (modalities) => modalities.flatMap((m) => ENDINGS[m] ?? []).map((ending) => `.${ending}`).join(",");

/** The modality of a file, of those that can be asked. */
export function modalityOf(file, askable) {
  const ending = file.name.split(".").pop().toLowerCase();
  const found = MODALITIES.find((modality) => ENDINGS[modality]?.includes(ending));
  if (found && askable.includes(found)) return found;
  const kinds = askable.map((modality) => ONE[modality]).join(", ");
  if (found) throw new Told(`${file.name}: this index cannot be asked with a ${ONE[found]}. It takes: ${kinds}.`);
  throw new Told(`${file.name}: expected a sound, a picture or a point cloud, such as ${accepted(askable).replaceAll(",", " ")}.`);
}

/** What is shown beside an uploaded part: a small canvas of a picture, a button that plays a sound; null for others. */
export async function previewOf(modality, blob) {
  try {
    if (modality === "image") {
      const bitmap = await createImageBitmap(blob);
      return { bitmap };
    }
    if (modality === "audio") {
      const sound = await decoded(blob);
      return { sound };
    }
  } catch {
    // the browser cannot show what the server may well read
  }
  return null;
}

export function play(sound) {
  const context = new AudioContext();
  const source = new AudioBufferSourceNode(context, { buffer: sound });
  source.connect(context.destination);
  source.onended = () => context.close();
  source.start();
}

/** Record until `stop()` is called or the longest time is over; `done` gives the WAV file. */
export async function startRecording() {
  if (!navigator.mediaDevices?.getUserMedia || !window.MediaRecorder) {
    throw new Told("No microphone: browsers give one to pages of this machine or of https:// only. Choose a file instead.");
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  } catch (error) {
    throw new Told(`No microphone: ${error.message || error.name}. Allow it in the browser, or choose a file.`);
  }
  const recorder = new MediaRecorder(stream);
  const pieces = [];
  const stopped = new Promise((resolve) => recorder.addEventListener("stop", resolve));
  recorder.addEventListener("dataavailable", (event) => pieces.push(event.data));
  recorder.start();
  const stop = () => recorder.state !== "inactive" && recorder.stop();
  const timer = setTimeout(stop, LONGEST_RECORDING_MS);
  const finish = async () => {
    await stopped;
    clearTimeout(timer);
    for (const track of stream.getTracks()) track.stop();
    return wavOf(await decoded(new Blob(pieces)));
  };
  return { stop, done: finish() };
}

async function decoded(blob) {
  const context = new OfflineAudioContext(1, 1, RATE_HZ);
  return context.decodeAudioData(await blob.arrayBuffer());
}

/** Write a sound as a WAV file of one channel and 16 bits, which every server reads. */
export function wavOf(sound) {
  const channels = Array.from({ length: sound.numberOfChannels }, (_, number) => sound.getChannelData(number));
  const view = new DataView(new ArrayBuffer(44 + 2 * sound.length));
  const letters = (at, word) => [...word].forEach((letter, number) => view.setUint8(at + number, letter.charCodeAt(0)));
  letters(0, "RIFF");
  view.setUint32(4, 36 + 2 * sound.length, true);
  letters(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // integers
  view.setUint16(22, 1, true); // one channel
  view.setUint32(24, sound.sampleRate, true);
  view.setUint32(28, 2 * sound.sampleRate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  letters(36, "data");
  view.setUint32(40, 2 * sound.length, true);
  for (let at = 0; at < sound.length; at++) {
    const mean = channels.reduce((sum, channel) => sum + channel[at], 0) / channels.length;
    view.setInt16(44 + 2 * at, Math.max(-1, Math.min(1, mean)) * 32767, true);
  }
  return new File([view.buffer], "recording.wav", { type: "audio/wav" });
}
