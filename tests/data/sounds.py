"""Sounds as files, written by libsndfile or PyAV."""

import io
import tempfile
from pathlib import Path

import av
import numpy as np
import soundfile


def tone(rate, seconds=1.0, hertz=440.0):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


NOISE = np.random.default_rng(0).uniform(-0.9, 0.9, size=3 * 44_100).astype(np.float32)


def written(samples, rate, kind="WAV", subtype=None):
    buffer = io.BytesIO()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(buffer, "w", rate, channels, subtype, format=kind) as file:
        for at in range(0, len(samples), 4096):  # libvorbis overflows the stack on long writes
            file.write(samples[at : at + 4096])
    return buffer.getvalue()


def encoded(samples, rate, kind, codec, *, film=False):
    """A container written by PyAV from `(channels, n)` samples; in a film, pictures stand before them."""
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "track"  # not a buffer: moving the index to the front reads the file again
    layout = "mono" if len(samples) == 1 else "stereo"
    with folder, av.open(str(path), "w", format=kind) as container:
        if film:
            picture = container.add_stream("mpeg4", rate=10, width=16, height=16, pix_fmt="yuv420p")
        stream = container.add_stream(codec, rate=rate, layout=layout)
        if film:
            container.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), dtype=np.uint8))))
            container.mux(picture.encode(None))
        fit = av.AudioResampler(format=stream.format.name, layout=layout, rate=rate)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
        frame.sample_rate = rate
        for part in fit.resample(frame):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
        container.close()
        return path.read_bytes()
