"""Tiny data sets in the published layouts: a few drawn pictures, short tones, small clouds."""

import json
import shutil
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

BOX_XML = "<annotations>{}</annotations>"
ANNOTATOR = "<annotator><bbox><bbox_type>object</bbox_type>{}</bbox></annotator>"
CORNERS = "<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>"


def text(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def as_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def picture(path, shade=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (shade % 256, 100, 200)).save(path, format="PNG" if path.suffix == ".png" else "JPEG")


def sound(path, seconds=0.1, level=0.1):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(round(8000 * seconds), level, dtype=np.float32), 8000)


def cloud(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.random.default_rng(seed).uniform(-1, 1, (20, 6))
    text(path, *(",".join(f"{value:.6f}" for value in row) for row in rows))


def clip(folder, name, *, frames="frames", audio="audio"):
    picture(folder / frames / f"{name}.jpg", len(name))
    sound(folder / audio / f"{name}.wav")


def video(path, shade=0):
    """A second of ten frames with a tone; the shade rises by 20 a frame."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10, width=16, height=16, pix_fmt="yuv420p")
        track = container.add_stream("aac", rate=44_100, layout="mono")
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), shade + 20 * number, dtype=np.uint8))
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        tone = av.AudioFrame.from_ndarray(np.full((1, 44_100), 0.25, dtype=np.float32), format="fltp", layout="mono")
        tone.sample_rate = 44_100
        container.mux(track.encode(tone))
        container.mux(track.encode(None))


def ave(folder):
    video(folder / "once.mp4")
    for name in ("RUhOCu3LNXM", "aaaaaaaaaaa", "-bbbbbbbbbb"):
        (folder / "AVE").mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "once.mp4", folder / "AVE" / f"{name}.mp4")
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
    for name, boxes in drawn.items():
        clip(folder, name)
        given = "".join(ANNOTATOR.format(CORNERS.format(*box)) for box in boxes)
        text(folder / "Annotations" / f"{name}.xml", BOX_XML.format(given))
    text(folder / "metadata" / "flickr_test.csv", "10002,", "10000,", "10003,")


VGG_SS = [
    {"file": "-0BIyqJj9ZU_000030", "class": "people belly laughing", "bbox": [[0.25, 0.5, 0.75, 1.01]]},
    {"file": "00QQLLcny14_000083", "class": "electric shaver", "bbox": [[0, 0, 0.5, 0.5], [-0.01, 0.5, 1.0, 1.0]]},
    {"file": "zzzzzzzzzzz_000001", "class": "empty", "bbox": [[0.5, 0.5, 0.5, 0.9]]},
]


def vgg_ss(folder):
    as_json(folder / "vggss.json", VGG_SS)
    for entry in VGG_SS:
        clip(folder, entry["file"])
    text(folder / "metadata" / "vggss_heard_test.csv", "00QQLLcny14_000083,electric shaver", "gone_0000000_000001,x")


def music_solo(folder):
    def entry(*boxes):
        return {"bbox": [{"box": [], "normbox": box, "category_id": 1} for box in boxes], "wdith": 640, "height": 360}

    annotated = {
        "4Oy5VmaacaI_0_1000/frame_001/00030.jpg": entry([0.35, 0.0, 0.375, 0.5]),
        "1Ju4S0qeDqw_0_1000/frame_000/00000.jpg": entry([0.25, 0.25, 0.25, 0.5], [0.5, 0.5, 0.6, 0.25]),
        "5_NsbkyLO2Q_0_1000/frame_000/00014.jpg": entry(),
    }
    as_json(folder / "solotest.json", annotated)
    for name in annotated:
        picture(folder / "video_frames" / name)
        sound(folder / "audio" / f"{name.split('/')[0]}.wav", seconds=2)


def extended(folder, stem):
    for name in ("a1", "b2", "c3"):
        clip(folder, name)
    text(folder / f"{stem}_test.csv", "b2,dog barking", "a1,cat")
    text(
        folder / f"{stem}_test_plus_silent.csv",
        "video,audio,label",
        "a1,a1,sounding",
        "a1,b2,non-sounding",
        "c3,a1,non-sounding",
        "c3,a1,non-sounding",
    )


def modelnet40(folder):
    text(folder / "modelnet40_shape_names.txt", "airplane", "night_stand")
    names = ["airplane_0627", "night_stand_0201", "night_stand_0202"]
    text(folder / "modelnet40_test.txt", *names)
    for seed, name in enumerate(names):
        cloud(folder / name.rpartition("_")[0] / f"{name}.txt", seed)


def scanobjectnn_arrays():
    points = np.random.default_rng(7).uniform(-1, 1, (4, 32, 3)).astype(np.float32)
    return points, np.array([0, 14, 3, 3], dtype=np.int32)


def objaverse_lvis(folder):
    entries = [
        {"uid": "bbb", "category": "Band_Aid", "data_path": "/mnt/data/x/bbb.npy", "group": "000-001"},
        {"uid": "aaa", "category": "zebra", "data_path": "/mnt/data/x/aaa.npy", "group": "000-002"},
        {"uid": "ccc", "category": "Band_Aid", "data_path": "/mnt/data/x/ccc.npy", "group": "000-001"},
    ]
    as_json(folder / "lvis.json", entries)
    for seed, entry in enumerate(entries):
        points = np.random.default_rng(seed).uniform(-1, 1, (20, 3))
        place = folder / "clouds" / entry["group"] / f"{entry['uid']}.npz"
        place.parent.mkdir(parents=True, exist_ok=True)
        np.savez(place, xyz=points, rgb=(points + 1) / 2)


def karpathy_image(name, split, captions, **more):
    return {"filename": name, "split": split, "sentences": [{"raw": said} for said in captions], **more}


def coco(folder):
    names = [f"COCO_val2014_{number:012d}.jpg" for number in (42, 73, 74)]
    images = [
        karpathy_image(names[0], "test", [f"a cat {n}" for n in range(6)], filepath="val2014", cocoid=42),
        karpathy_image(names[1], "train", ["unseen"], filepath="val2014", cocoid=73),
        karpathy_image(names[2], "test", [f"a dog {n} " for n in range(5)], filepath="val2014", cocoid=74),
    ]
    as_json(folder / "dataset_coco.json", {"images": images, "dataset": "coco"})
    for name in names:
        picture(folder / "val2014" / name)
    annotations = [
        {"image_id": 139, "id": 30, "caption": "third"},
        {"image_id": 139, "id": 10, "caption": "first"},
        {"image_id": 285, "id": 11, "caption": "a bear"},
        {"image_id": 139, "id": 20, "caption": "second"},
    ]
    listed = [{"id": number, "file_name": f"{number:012d}.jpg"} for number in (285, 139)]
    as_json(folder / "annotations/captions_val2017.json", {"images": listed, "annotations": annotations})
    for entry in listed:
        picture(folder / "val2017" / entry["file_name"])


def flickr30k(folder):
    images = [
        karpathy_image("1007129816.jpg", "test", [f"a man {n}" for n in range(5)]),
        karpathy_image("1000092795.jpg", "train", ["two men"]),
        karpathy_image("1009434119.jpg", "test", [f"a dog {n}" for n in range(5)]),
    ]
    as_json(folder / "dataset_flickr30k.json", {"images": images, "dataset": "flickr30k"})
    lines = [f"1007129816.jpg#{n}\tA man {n} ." for n in range(5)] + ["1000092795.jpg#0\tTwo men ."]
    text(folder / "results_20130124.token", *lines)
    for name in ("1007129816.jpg", "1000092795.jpg", "1009434119.jpg"):
        picture(folder / "flickr30k-images" / name)


def audiocaps(folder):
    rows = [f"{number},abcdefghijk,30,A dog barks {number}" for number in range(1, 6)]
    rows += ['6,-1234567890,0,"Rain, and thunder"', "7,ZZZZZZZZZZZ,10,Speech"]
    text(folder / "test.csv", "audiocap_id,youtube_id,start_time,caption", *rows)
    sound(folder / "audio" / "abcdefghijk_30.wav")
    sound(folder / "audio" / "Y-1234567890.wav")
    sound(folder / "audio" / "7.wav")


def clotho(folder):
    header = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5"
    rows = ['Rain (1).wav,"Rain, falling",b,c,d,e', "Été.wav,f,g,h,i,j"]
    text(folder / "clotho_captions_evaluation.csv", header, *rows)
    for name in ("Rain (1).wav", "Été.wav"):
        sound(folder / "evaluation" / name)


def esc50(folder):
    rows = [
        "1-100-A-0.wav,1,0,dog,True,100,A",
        "5-200-A-1.wav,5,1,chirping_birds,False,200,A",
        "1-3-A-1.wav,1,1,chirping_birds,False,3,A",
    ]
    text(folder / "meta/esc50.csv", "filename,fold,target,category,esc10,src_file,take", *rows)
    for row in rows:
        sound(folder / "audio" / row.split(",")[0])


def imagenet(folder, per_class=50):
    text(folder / "LOC_synset_mapping.txt", "n01440764 tench, Tinca tinca", "n01443537 goldfish, Carassius auratus")
    for key in ("n01440764", "n01443537"):
        for number in range(per_class):
            picture(folder / "val" / key / f"ILSVRC2012_val_{number:08d}.JPEG", number)


def scanobjectnn(folder):
    points, labels = scanobjectnn_arrays()
    path = folder / "main_split" / "test_objectdataset_augmentedrot_scale75.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, data=points, label=labels)


WRITERS = {
    "ave": ave,
    "flickr-soundnet": flickr_soundnet,
    "flickr-soundnet-boxes": flickr_soundnet,
    "vgg-ss": vgg_ss,
    "vgg-ss-boxes": vgg_ss,
    "music-solo": music_solo,
    "ex-vgg-ss": lambda folder: extended(folder, "vggss"),
    "ex-flickrnet": lambda folder: extended(folder, "flickr"),
    "modelnet40": modelnet40,
    "scanobjectnn": scanobjectnn,
    "objaverse-lvis": objaverse_lvis,
    "coco": coco,
    "flickr30k": flickr30k,
    "audiocaps": audiocaps,
    "clotho": clotho,
    "esc-50": esc50,
    "imagenet": imagenet,
}


def write(name, folder) -> Path:
    """Write the tiny set of a name into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    WRITERS[name](folder)
    return folder
