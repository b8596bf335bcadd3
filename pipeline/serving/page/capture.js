// Microphones and cameras, and one sentence for each way in which they can fail.

const SENTENCES = {
  NotAllowedError: "The browser may not use the {device}: allow it beside the address above, then start again.",
  NotFoundError: "There is no {device}: connect one, then start again.",
  NotReadableError: "Another program holds the {device}, or it does not answer: close that program, then start again.",
  OverconstrainedError: "The chosen {device} is gone: choose another one.",
};

// A MediaStream of the devices asked for (true, or a device's id); an Error with a sentence for people.
export async function askFor({ sound, picture }) {
  const device = [sound && "microphone", picture && "camera"].filter(Boolean).join(" or the ");
  if (!navigator.mediaDevices)
    throw new Error(
      `Browsers open the ${device} only for secure addresses: open http://localhost:${location.port} through ` +
        `“ssh -L ${location.port}:localhost:${location.port} ${location.hostname}”, or give the server source.certificate=FILE.`,
    );
  const chosen = (id) => (typeof id === "string" ? { deviceId: { exact: id } } : {});
  const plain = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  try {
    return await navigator.mediaDevices.getUserMedia({
      audio: sound && { ...plain, ...chosen(sound) },
      video: picture && { width: { ideal: 640 }, height: { ideal: 480 }, ...chosen(picture) },
    });
  } catch (error) {
    const text = SENTENCES[error.name] ?? `The {device} cannot be opened (${error.message}).`;
    throw Object.assign(new Error(text.replace("{device}", device)), { name: error.name });
  }
}

// All devices by kind; their labels are empty before people have allowed one.
export async function devices() {
  const all = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  const of = (kind) => all.filter((one) => one.kind === kind && one.deviceId).map(({ deviceId, label }) => ({ id: deviceId, label }));
  return { sound: of("audioinput"), picture: of("videoinput") };
}

// The sound of a MediaStream in frames of so many samples. `at` is performance.now() of a frame's end.
export async function hear(stream, { rate, frame, onFrame, onLost = () => {}, onState = () => {} }) {
  const [track] = stream.getAudioTracks();
  let context = new AudioContext({ sampleRate: rate, latencyHint: "interactive" }), source;
  try {
    source = context.createMediaStreamSource(stream);
  } catch { // Firefox takes no other rate than the device's
    await context.close();
    context = new AudioContext({ latencyHint: "interactive" });
    source = context.createMediaStreamSource(stream);
  }
  await context.audioWorklet.addModule("worklet.js");
  const node = new AudioWorkletNode(context, "frames", { numberOfOutputs: 0, processorOptions: { rate, frame } });
  node.port.onmessage = ({ data }) => onFrame({ ...data, at: data.at - Date.now() + performance.now() });
  source.connect(node);
  track.onended = () => onLost("The microphone was unplugged");
  context.onstatechange = () => onState(context.state);
  await context.resume();
  return {
    context,
    resume: () => context.resume(),
    stop() {
      track.onended = context.onstatechange = node.port.onmessage = null;
      track.stop();
      if (context.state !== "closed") context.close();
    },
  };
}

export async function jpegOf(canvas) {
  const blob = await canvas.convertToBlob({ type: "image/jpeg", quality: 0.85 });
  return new Uint8Array(await blob.arrayBuffer());
}

// The pictures of a MediaStream as JPEGs `width` wide, `rate` a second at most; `video` shows them.
export async function see(stream, video, { width = 320, rate = 30, onPicture, onLost = () => {} }) {
  const [track] = stream.getVideoTracks();
  video.srcObject = stream;
  await video.play();
  const canvas = new OffscreenCanvas(width, 2 * Math.round((width * video.videoHeight) / video.videoWidth / 2));
  const pencil = canvas.getContext("2d", { alpha: false });
  let busy = false, stopped = false, due = 0;
  async function take(now, { captureTime }) {
    if (stopped) return;
    video.requestVideoFrameCallback(take);
    const at = captureTime ?? now;
    if (busy || at < due) return;
    due = Math.max(due + 900 / rate, at - 100 / rate);
    busy = true;
    pencil.drawImage(video, 0, 0, canvas.width, canvas.height);
    const jpeg = await jpegOf(canvas);
    busy = false;
    if (!stopped) onPicture({ jpeg, at });
  }
  video.requestVideoFrameCallback(take);
  track.onended = () => onLost("The camera was unplugged");
  return {
    stop() {
      stopped = true;
      track.onended = null;
      track.stop();
      video.srcObject = null;
    },
  };
}
