"""Tiny data sets in the published layouts: a few drawn pictures, short tones, small clouds."""

import json
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image


def ready(path):
    """Make the folder of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def text(path, *lines):
    ready(path).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def as_json(path, content):
    text(path, json.dumps(content))


def picture(path, shade=0):
    Image.new("RGB", (8, 8), (shade % 256, 100, 200)).save(
        ready(path), format="PNG" if path.suffix == ".png" else "JPEG"
    )


def sound(path, seconds=0.1):
    soundfile.write(ready(path), np.full(round(8000 * seconds), 0.1, dtype=np.float32), 8000)


def clip(folder, name):
    picture(folder / "frames" / f"{name}.jpg", len(name))
    sound(folder / "audio" / f"{name}.wav")


def video(path):
    """A second of ten frames with a tone."""
    import av

    with av.open(str(ready(path)), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10, width=16, height=16, pix_fmt="yuv420p")
        track = container.add_stream("aac", rate=44_100, layout="mono")
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 20 * number, dtype=np.uint8))
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        tone = av.AudioFrame.from_ndarray(np.full((1, 44_100), 0.25, dtype=np.float32), format="fltp", layout="mono")
        tone.sample_rate = 44_100
        container.mux(track.encode(tone))
        container.mux(track.encode(None))


def ave(folder):
    for name in ("RUhOCu3LNXM", "aaaaaaaaaaa", "-bbbbbbbbbb"):
        video(folder / "AVE" / f"{name}.mp4")
    rows = [
        "Church bell&RUhOCu3LNXM&good&0&10",
        "Male speech, man speaking&aaaaaaaaaaa&good&2&7",
        "Bark&aaaaaaaaaaa&good&0&3",
        "Rodents, rats, mice&-bbbbbbbbbb&good&1&9",
    ]
    text(folder / "Annotations.txt", "Category&VideoID&Quality&StartTime&EndTime", *rows)
    text(folder / "testSet.txt", rows[0], rows[3])


def flickr_soundnet(folder):
    drawn = {
        "10000": [(0, 0, 128, 256), (64, 0, 128, 128), (0, 0, 256, 256)],
        "10001": [(32, 64, 96, 128)] * 3,
        "10002": [(0, 0, 64, 64)],
        "10003": [(10, 10, 10, 20)],  # no width
    }
    corners = "<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>"
    for name, boxes in drawn.items():
        clip(folder, name)
        given = (f"<bbox><bbox_type>object</bbox_type>{corners.format(*box)}</bbox>" for box in boxes)
        people = "".join(f"<annotator>{box}</annotator>" for box in given)
        text(folder / "Annotations" / f"{name}.xml", f"<annotations>{people}</annotations>")
    text(folder / "metadata" / "flickr_test.csv", "10002,", "10000,", "10003,")


def vgg_ss(folder):
    boxes = {
        "-0BIyqJj9ZU_000030": [[0.25, 0.5, 0.75, 1.01]],
        "00QQLLcny14_000083": [[0, 0, 0.5, 0.5], [-0.01, 0.5, 1.0, 1.0]],
        "zzzzzzzzzzz_000001": [[0.5, 0.5, 0.5, 0.9]],  # no width
    }
    as_json(folder / "vggss.json", [{"file": name, "class": "dog", "bbox": bbox} for name, bbox in boxes.items()])
    for name in boxes:
        clip(folder, name)
    text(folder / "metadata" / "vggss_heard_test.csv", "00QQLLcny14_000083,electric shaver", "gone_0000000_000001,x")


def music_solo(folder):
    drawn = {
        "4_0/frame_001/30.jpg": [[0.25, 0.0, 0.375, 0.5]],
        "1_0/frame_000/0.jpg": [[0.0, 0.25, 0.5, 0.5], [0.5, 0.5, 0.6, 0.5]],
        "5_0/frame_000/14.jpg": [],
    }
    frames = {name: {"bbox": [{"box": [], "normbox": box} for box in boxes]} for name, boxes in drawn.items()}
    as_json(folder / "solotest.json", frames)
    for name in drawn:
        picture(folder / "video_frames" / name)
        sound(folder / "audio" / f"{name.split('/')[0]}.wav", seconds=2)


def extended(folder, stem):
    for name in ("a1", "b2", "c3"):
        clip(folder, name)
    text(folder / f"{stem}_test.csv", "b2,dog barking", 'a1,"pigeon, dove cooing"')
    rows = ["a1,a1,sounding", "a1,b2,non-sounding", *["c3,a1,non-sounding"] * 2]  # one row is there twice
    text(folder / f"{stem}_test_plus_silent.csv", "video,audio,label", *rows)


def modelnet40(folder):
    text(folder / "modelnet40_shape_names.txt", "airplane", "night_stand")
    names = ["airplane_0627", "night_stand_0201", "night_stand_0202"]
    text(folder / "modelnet40_test.txt", *names)
    for seed, name in enumerate(names):
        rows = np.random.default_rng(seed).uniform(-1, 1, (20, 6))
        text(folder / name.rpartition("_")[0] / f"{name}.txt", *(",".join(map("{:.6f}".format, row)) for row in rows))


def scanobjectnn_arrays():
    points = np.random.default_rng(7).uniform(-1, 1, (4, 32, 3)).astype(np.float32)
    return points, np.array([0, 14, 3, 3], dtype=np.int32)


def scanobjectnn(folder):
    points, labels = scanobjectnn_arrays()
    np.savez(ready(folder / "main_split/test_objectdataset_augmentedrot_scale75.npz"), data=points, label=labels)


def objaverse_lvis(folder):
    listed = [("bbb", "Band_Aid", "000-001"), ("aaa", "zebra", "000-002"), ("ccc", "Band_Aid", "000-001")]
    keys = ("uid", "category", "group")
    as_json(folder / "lvis.json", [dict(zip(keys, entry, strict=True)) for entry in listed])
    for seed, (uid, _, group) in enumerate(listed):
        points = np.random.default_rng(seed).uniform(-1, 1, (20, 3))
        np.savez(ready(folder / "clouds" / group / f"{uid}.npz"), xyz=points, rgb=(points + 1) / 2)


def karpathy_image(name, split, captions, filepath=""):
    return {"filename": name, "filepath": filepath, "split": split, "sentences": [{"raw": one} for one in captions]}


def coco(folder):
    images = [
        karpathy_image("42.jpg", "test", [f"a cat {n}" for n in range(6)], "val2014"),
        karpathy_image("73.jpg", "train", ["unseen"], "val2014"),
        karpathy_image("74.jpg", "test", ["a dog 0 ", "a dog 1 "], "val2014"),
    ]
    as_json(folder / "dataset_coco.json", {"images": images, "dataset": "coco"})
    for image in images:
        picture(folder / "val2014" / image["filename"])
    captions = [(139, 30, "third"), (139, 10, "first"), (285, 11, "a bear"), (139, 20, "second")]
    annotations = [dict(zip(("image_id", "id", "caption"), entry, strict=True)) for entry in captions]
    listed = [{"id": number, "file_name": f"{number:012d}.jpg"} for number in (285, 139)]
    as_json(folder / "annotations/captions_val2017.json", {"images": listed, "annotations": annotations})
    for entry in listed:
        picture(folder / "val2017" / entry["file_name"])


def flickr30k(folder):
    images = [
        karpathy_image("1007129816.jpg", "test", ["a man 0", "a man 1"]),
        karpathy_image("1000092795.jpg", "train", ["two men"]),
        karpathy_image("1009434119.jpg", "test", ["a dog"]),
    ]
    as_json(folder / "dataset_flickr30k.json", {"images": images, "dataset": "flickr30k"})
    for image in images:
        picture(folder / "flickr30k-images" / image["filename"])


def audiocaps(folder):
    rows = [f"{number},abcdefghijk,30,A dog barks {number}" for number in (1, 2)]
    rows += ['6,-1234567890,0,"Rain, and thunder"', "7,ZZZZZZZZZZZ,10,Speech"]
    text(folder / "test.csv", "audiocap_id,youtube_id,start_time,caption", *rows)
    for name in ("abcdefghijk_30", "Y-1234567890", "7"):
        sound(folder / "audio" / f"{name}.wav")


def clotho(folder):
    header = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5"
    rows = ['Rain (1).wav,"Rain, falling",b,c,d,e', "Été.wav,f,g,h,i,j"]
    text(folder / "clotho_captions_evaluation.csv", header, *rows)
    for name in ("Rain (1).wav", "Été.wav"):
        sound(folder / "evaluation" / name)


def esc_50(folder):
    rows = ["1-100-A-0.wav,1,0,dog", "5-200-A-1.wav,5,1,chirping_birds", "1-3-A-1.wav,1,1,chirping_birds"]
    text(folder / "meta/esc50.csv", "filename,fold,target,category", *rows)
    for row in rows:
        sound(folder / "audio" / row.split(",")[0])


def imagenet(folder):
    text(folder / "LOC_synset_mapping.txt", "n01440764 tench, Tinca tinca", "n01443537 goldfish, Carassius auratus")
    for key in ("n01440764", "n01443537"):
        for number in range(50):
            picture(folder / "val" / key / f"{number:08d}.JPEG", number)


SETS = (ave, flickr_soundnet, vgg_ss, music_solo, modelnet40, scanobjectnn, objaverse_lvis, coco, flickr30k, audiocaps)
WRITERS = {
    **{write.__name__.replace("_", "-"): write for write in (*SETS, clotho, esc_50, imagenet)},
    "flickr-soundnet-boxes": flickr_soundnet,
    "vgg-ss-boxes": vgg_ss,
    "ex-vgg-ss": lambda folder: extended(folder, "vggss"),
    "ex-flickrnet": lambda folder: extended(folder, "flickr"),
}


def write(name, folder) -> Path:
    """Write the tiny set of a name into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    WRITERS[name](folder)
    return folder
