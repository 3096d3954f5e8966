"""A plan tells what a run takes before anything is there, and refuses what cannot fit."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_recipe import ROOT, stopped_after_a_shard, write_recipe

import cmcr
from cmcr.cli import main
from cmcr.cli.plan import tell_plan
from cmcr.connection.checkpoint import LOCK, VERSION, unfinished
from cmcr.connection.group import Launch
from cmcr.connection.settings import settings_of
from cmcr.errors import ConfigError, DimensionError, FormatError
from cmcr.files import MANIFEST, locked, write_manifest
from cmcr.memories.precomputed import write_memory
from cmcr.recipes import costs, disk, gemm
from cmcr.recipes import plan as module
from cmcr.recipes.assumptions import Assumptions, read_assumptions
from cmcr.recipes.connect_plan import PlannedSpace, connect_stages, plan_of_memories, time_steps
from cmcr.recipes.reading import read_recipe
from cmcr.recipes.recipe_plan import plan_recipe

PAPER = sorted(ROOT.glob("recipes/paper/*.toml"))
RATE = 1e12


@pytest.fixture(autouse=True)
def known_machine(monkeypatch):
    """A machine whose rate and RAM are known."""
    monkeypatch.setattr(module, "gemm_rate", lambda device, precision: RATE)
    monkeypatch.setattr(module, "ram_bytes", lambda: 64_000_000_000)
    monkeypatch.setattr(module, "available_ram_bytes", lambda: 60_000_000_000)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**12))


def stages(found):
    return {stage.stage: stage for stage in found.stages}


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_the_paper_is_planned_without_any_data(path, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["plan", str(path), "--root", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "planned with the recipe's expected_items" in shown.out
    assert "Of what can be told, connect: " in shown.out
    assert list(tmp_path.iterdir()) == []


def test_the_figures_of_the_first_connection():
    recipe = read_recipe(ROOT / "recipes/paper/clip-clap.toml")
    found = stages(plan_recipe(recipe, device="cpu"))
    assert found["embed clip-clap/texts-in-clip"].writes == pytest.approx(2.5e9, rel=0.03)
    clap = found["connect: semantic consistency of clap"]
    assert clap.operations == 4 * 2_330_000 * 1_800_000 * 512
    assert clap.seconds == pytest.approx(clap.operations / (gemm.CONSISTENCY_SHARE["float32"] * RATE))
    assert clap.writes == 4 * 2_330_000 * 512  # the rows that are kept until the connection is written
    assert clap.reads == 2 * 512 * (2_330_000 + 1_800_000)  # it fits in RAM beside the embeddings
    training = found["connect: training"]
    assert training.seconds == pytest.approx(training.operations / (gemm.TRAINING_SHARE["float32"] * RATE))
    assert training.ram == pytest.approx(4 * 4 * 2_330_000 * 512 + 300 * 2_330_000 + 1.86e9, rel=0.02)
    assert (training.gpu, training.problems) == (None, [])
    (note,) = training.notes
    assert note.startswith(
        "of what connecting writes, 9.6 GB are needed only until the connection is there: they are in"
    )
    assert "connection.unfinished, beside it" in note
    assert found["embed clip-clap/sounds-in-clap"].seconds is None


def test_what_dominates():
    recipe = read_recipe(ROOT / "recipes/paper/clip-clap.toml")
    rates = {"clip/text": 1e6, "clap/text": 1e6, "clip/image": 1e6, "clap/audio": 25.0}
    found = plan_recipe(recipe, Assumptions(rates=rates), only=["embed", "connect"], device="cpu")
    assert stages(found)["embed clip-clap/sounds-in-clap"].seconds == 1_800_000 / 25
    assert found.unknown == []
    assert found.dominating.stage == "embed clip-clap/sounds-in-clap"
    share = 100 * 72_000 / found.seconds
    assert found.verdict == f"embed clip-clap/sounds-in-clap takes {share:.0f} % of {found.seconds / 3600:.1f} h."
    within = plan_recipe(recipe, only=["connect"], device="cpu")
    assert [stage.stage for stage in within.stages] == [
        "connect: semantic consistency of clip",
        "connect: semantic consistency of clap",
        "connect: training",
    ]
    assert within.verdict.startswith("connect: training takes 4")


def test_products_in_bfloat16_count_at_their_own_rate(monkeypatch):
    monkeypatch.setattr(module, "gemm_rate", lambda device, precision: RATE * (1 + (precision == "bfloat16")))
    machine = module.Machine("cpu", "bfloat16")
    settings = settings_of("c-mcr-published", precision="bfloat16")
    spaces = [PlannedSpace(name, 512, 100_000, 50_000, "float16") for name in "ab"]
    steps = connect_stages(*spaces, settings, machine, None)
    time_steps(steps, machine)
    assert steps[0].seconds == pytest.approx(steps[0].operations / (gemm.CONSISTENCY_SHARE["bfloat16"] * 2 * RATE))
    coarse = costs.coarse_operations(100_000, 512, 512, settings)
    products = (steps[-1].operations - coarse) / RATE + coarse / (2 * RATE)
    assert steps[-1].seconds == pytest.approx(products / gemm.TRAINING_SHARE["bfloat16"])
    in_float32 = steps[-1].operations / (gemm.TRAINING_SHARE["float32"] * RATE)
    assert in_float32 / steps[-1].seconds == pytest.approx(1.13, abs=0.02)  # as measured
    assert machine.facts()["operations_per_second"] == {"bfloat16": 2 * RATE, "float32": RATE}


def test_lists_that_are_there_are_counted_and_nothing_is_opened_or_written(folder, monkeypatch, capsys):
    monkeypatch.setattr("cmcr.recipes.encoders.space", None)
    path = write_recipe(folder)
    before = sorted(folder.rglob("*"))
    assert main(["plan", str(path), "--json"]) == 0
    assert sorted(folder.rglob("*")) == before
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {
        "name",
        "can_run",
        "machine",
        "stages",
        "disks",
        "seconds",
        "dominating",
        "verdict",
        "problems",
        "unknown",
    }
    assert set(found["machine"]) == {
        "device",
        "ram_bytes",
        "ram_available_bytes",
        "gpu_bytes",
        "precision",
        "processes",
        "operations_per_second",
    }
    assert found["can_run"] is True
    assert found["machine"]["operations_per_second"] == {"float32": RATE}
    assert [stage["items"] for stage in found["stages"]] == [40] * 7 + [400]
    pictures = found["stages"][1]
    assert pictures["reads"] == pytest.approx(sum(p.stat().st_size for p in (folder / "pictures").iterdir()), rel=0.2)
    assert set(pictures) == {
        "stage",
        "state",
        "items",
        "operations",
        "bfloat16_operations",
        "reads",
        "writes",
        "ram",
        "gpu",
        "seconds",
        "where",
        "problems",
        "unknown",
        "notes",
    }


def test_the_bytes_are_those_that_are_written_and_what_is_done_takes_nothing(folder, capsys):
    path = write_recipe(folder)
    recipe = read_recipe(path)
    planned = stages(plan_recipe(recipe, device="cpu"))
    assert main(["run", str(path), "--json", "--device", "cpu"]) == 0
    for memory in recipe.memories:
        written = sum(file.stat().st_size for file in recipe.path(memory.out).iterdir())
        assert planned[f"embed {memory.out}"].writes == pytest.approx(written, rel=0.25)
    capsys.readouterr()
    found = plan_recipe(recipe, device="cpu")
    assert {stage.state for stage in found.stages} == {"done"}
    assert (found.seconds, found.verdict, found.unknown) == (0.0, "Nothing is left to do.", [])
    assert found.machine["operations_per_second"] == {}  # there was nothing to measure for
    shutil.rmtree(recipe.path(recipe.connection.out))
    found = stages(plan_recipe(recipe, Assumptions(widths={"mini-clip": 7}), device="cpu"))
    assert found["connect: training"].state == "to do"
    consistency = found["connect: semantic consistency of mini-clip"]
    assert consistency.operations == 4 * 40 * 40 * 128  # as wide as the memory is, whatever was said
    assert found["evaluate counterfactual/mini"].state == "to do"


def test_a_memory_that_was_stopped_counts_what_is_left(folder):
    recipe = stopped_after_a_shard(folder)
    found = stages(plan_recipe(recipe, Assumptions(rates={"mini-clip/image": 2.0}), device="cpu"))
    assert found["embed clip-clap/images-in-clip"].state == "begun"
    assert found["embed clip-clap/images-in-clip"].seconds == 10 / 2


def test_what_nobody_says_is_told_to_be_missing(tmp_path, capsys):
    path = write_recipe(tmp_path, **{"[spaces.mini-clap]": '[spaces.mini-clap]\nkind = "clap"\nmodel = "some/other"'})
    assert main(["plan", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [stage["items"] for stage in found["stages"][:7]] == [None] * 7
    assert found["seconds"] == 0
    assert found["verdict"] == "How long it takes cannot be told yet."
    assert "items of captions.txt: --items 'captions.txt'=COUNT" in found["unknown"]
    assert "width of mini-clap: --width mini-clap=N" in found["unknown"]
    assert (
        "rate of mini-clap/audio: --rate mini-clap/audio=ITEMS_A_SECOND, or --rates FILE of a dry run"
        in found["unknown"]
    )
    said = ["--items", "text=3,000", "image=10", "clip-clap/sounds-in-clap=20", "sounds=99", "--width", "mini-clap=512"]
    assert main(["plan", str(path), *said, "--only", "connect", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [stage["items"] for stage in found["stages"]] == [3000, 3000, 3000]
    assert found["stages"][1]["operations"] == 4 * 3000 * 20 * 512
    assert found["unknown"] == []


def test_rates_come_from_what_a_dry_run_has_printed(folder, capsys):
    path = write_recipe(folder)
    assert main(["run", str(path), "--dry-run", "--json", "--device", "cpu"]) == 0
    printed = folder / "dry.json"
    printed.write_text(capsys.readouterr().out, encoding="utf-8")
    recipe = read_recipe(path)
    said = read_assumptions(recipe, rates=["mini-clip/image=3"], rates_file=printed)
    assert set(said.rates) == {"mini-clip/text", "mini-clip/image", "mini-clap/text", "mini-clap/audio"}
    assert said.rates["mini-clip/image"] == 3.0
    assert plan_recipe(recipe, said, only=["embed"], device="cpu").unknown == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--items", "captions"], "--items: expected NAME=NUMBER, got 'captions'"),
        (["--items", "caption.txt=3"], "unknown name in --items 'caption.txt'. Did you mean 'captions.txt'?"),
        (["--items", "text=0"], "--items text: expected a whole number of at least 1, got '0'"),
        (["--items", "text=1.5"], "--items text: expected a whole number of at least 1, got '1.5'"),
        (["--width", "mini-clip=wide"], "--width mini-clip: expected a whole number of at least 1, got 'wide'"),
        (["--width", "mini-klip=3"], "Did you mean 'mini-clip'?"),
        (["--rate", "mini-clip/text=-1"], "--rate mini-clip/text: expected a number above 0, got '-1'"),
        (["--rate", "mini-clip/text=nan"], "expected a number above 0, got 'nan'"),
        (["--rate", "mini-clip/audio=1"], "unknown name in --rate 'mini-clip/audio'"),
        (["--rates", "gone.json"], "--rates gone.json: expected the output of cmcr run RECIPE --dry-run --json"),
        (["--only", "conect"], "Did you mean 'connect'?"),
    ],
)
def test_wrong_calls_end_with_2(wrong, said, folder, capsys):
    assert main(["plan", str(write_recipe(folder)), *wrong]) == 2
    assert said in capsys.readouterr().err


def test_too_little_disk_ends_with_1(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: SimpleNamespace(free=7_000_000_000))
    call = ["plan", str(PAPER[0]), "--root", str(tmp_path)]
    assert main(call) == 1
    shown = capsys.readouterr()
    assert "this cannot run here:\n- disk: 18.0 GB are needed below" in shown.err
    assert "7.0 GB are free. Free some, keep memories in float16, or put memories or the connection on" in shown.err
    assert "connect: training" in shown.out
    assert main([*call, "--json"]) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)["can_run"] is False
    assert json.loads(shown.err)["error"] == "CannotFitError"


def test_embeddings_that_do_not_fit_in_ram_are_kept_in_files(monkeypatch):
    monkeypatch.setattr(module, "ram_bytes", lambda: 16_000_000_000)
    found = plan_recipe(read_recipe(PAPER[0]), only=["connect"], device="cpu")
    training = stages(found)["connect: training"]
    embeddings = 4 * 4 * 2_330_000 * 512
    assert found.problems == []
    assert training.ram < 16_000_000_000
    assert embeddings < training.writes < embeddings + 100_000_000
    assert training.reads == 36 * embeddings + embeddings // 2  # the overlap is hashed
    assert training.notes[0].startswith(
        "embeddings (19.1 GB) take more than 80% of the RAM (16.0 GB): they are kept in"
    )
    assert found.disks[0].needed == training.writes + 2 * 4 * 2_330_000 * 512


@pytest.mark.parametrize(
    ("ram", "kept_in_ram"), [(20_000_000_000, False), (24_000_000_000, False), (26_000_000_000, True)]
)
def test_the_plan_promises_no_more_ram_than_connecting_takes(ram, kept_in_ram, monkeypatch):
    monkeypatch.setattr(module, "ram_bytes", lambda: ram)
    monkeypatch.setattr(module, "available_ram_bytes", lambda: ram - 1_000_000_000)
    machine = module.Machine("cpu")
    spaces = [PlannedSpace(name, 512, 2_400_000, 1000, "float16") for name in "ab"]
    training = connect_stages(*spaces, settings_of("c-mcr"), machine, None)[-1]
    assert (training.ram > 19_000_000_000) is kept_in_ram
    assert (training.writes < 100_000_000) is kept_in_ram


def test_ram_that_others_have_now_is_told(monkeypatch):
    monkeypatch.setattr(module, "available_ram_bytes", lambda: 10_000_000_000)
    training = stages(plan_recipe(read_recipe(PAPER[0]), only=["connect"], device="cpu"))["connect: training"]
    assert training.writes < 100_000_000
    assert (
        "not into 80% of what is available now (10.0 GB): begun now, they would be kept in files" in training.notes[0]
    )


def test_a_memory_that_does_not_fit_in_ram_is_read_again_and_again(monkeypatch):
    monkeypatch.setattr(module, "ram_bytes", lambda: 3_000_000_000)
    found = stages(plan_recipe(read_recipe(PAPER[0]), only=["connect"], device="cpu"))
    passes = costs.passes(2_330_000, 512, torch.device("cpu"), "float32")
    assert passes > 100
    assert found["connect: semantic consistency of clap"].reads == 2 * 512 * (2_330_000 + passes * 1_800_000)


def test_batches_that_fit_nowhere_are_refused(monkeypatch):
    monkeypatch.setattr(module, "ram_bytes", lambda: 1_500_000_000)
    found = plan_recipe(read_recipe(PAPER[0]), only=["connect"], device="cpu")
    assert len(found.problems) == 1
    assert found.problems[0].startswith(
        "connect: training: a step of 10,240 items: 2.6 GB are needed in RAM even without"
    )
    assert found.problems[0].endswith("there are 1.5 GB. Choose a smaller batch_size in the settings.")


@pytest.mark.parametrize(
    ("gpu", "held", "problems", "noted"),
    [
        (80 * 10**9, 20.95e9, 0, False),
        (26 * 10**9, 1.86e9, 0, True),  # 70 % of it are too little
        (10 * 10**9, 1.86e9, 0, True),
        (1 * 10**9, 1.86e9, 1, True),
    ],
)
def test_the_memory_of_a_gpu(gpu, held, problems, noted, monkeypatch):
    monkeypatch.setattr(module, "choose_device", lambda device: torch.device("cuda"))
    monkeypatch.setattr(module, "gpu_bytes", lambda device: gpu)
    monkeypatch.setattr(module.Machine, "gpu_now", gpu)
    found = plan_recipe(read_recipe(PAPER[0]), only=["connect"], device="cuda")
    training = stages(found)["connect: training"]
    assert training.gpu == pytest.approx(held, rel=0.03)
    assert len(found.problems) == problems
    assert any("they are not kept on it" in note for note in training.notes) is noted
    assert (training.ram > 19e9) is noted  # in one place, not in both
    assert all("--device cpu" in problem for problem in found.problems)


@pytest.fixture
def memories(tmp_path):
    rng = np.random.default_rng(0)
    for space, modality, count, width in (
        ("clip", "text", 50, 8),
        ("clap", "text", 40, 6),
        ("clip", "image", 30, 8),
        ("clap", "audio", 20, 6),
    ):
        write_memory(tmp_path / f"{modality}-{space}", rng.normal(size=(count, width)), space=space, modality=modality)
    return [cmcr.Memory(path) for path in sorted(tmp_path.iterdir())]


def test_memories_that_are_there(memories, tmp_path, capsys):
    settings = settings_of("c-mcr", batch_size=100)
    found = plan_of_memories(memories, settings, device="cpu", out=tmp_path / "connection")
    planned = stages(found)
    assert found.name == "clap and clip through text"
    assert planned["connect: semantic consistency of clap"].operations == 4 * 40 * 20 * 6
    assert planned["connect: semantic consistency of clip"].operations == 4 * 40 * 30 * 8
    training = planned["connect: training"]
    assert training.operations == costs.training_operations(40, 6, 8, settings)
    assert training.notes[0] == "batch_size 100 is more than there is: a step takes all 40 items"
    assert (
        training.notes[-1]
        == "the overlap: 40 items are in both 'clap' and 'clip'; 10 that only one of them has are left out."
    )
    tell_plan(found, False)
    shown = capsys.readouterr().out
    assert "connect: semantic consistency of clip" in shown
    assert (
        "this machine (cpu): 64.0 GB of RAM, 60.0 GB of it available now, operations a second, measured: 1.0e+12 in float32"
        in shown
    )
    assert [
        (stage.stage, stage.reads)
        for stage in plan_of_memories(memories, settings_of("c-mcr", semantic_consistency=False)).stages
    ] == [("connect: training", 40 * (6 + 8) * 2)]
    with pytest.raises(ConfigError, match="expected memories of two spaces"):
        plan_of_memories(memories[:1], settings)


def of_several(size, here, monkeypatch):
    launched = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": here, "RANK": 0, "MASTER_ADDR": "localhost", "MASTER_PORT": 1}
    for name, value in launched.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(module, "_cores", lambda: 3 * torch.get_num_threads())


@pytest.mark.filterwarnings("ignore:the overlap:UserWarning")
def test_several_processes_are_planned_together(memories, monkeypatch, capsys):
    settings = settings_of("c-mcr")
    one = stages(plan_of_memories(memories, settings, device="cpu"))
    of_several(4, 4, monkeypatch)
    found = plan_of_memories(memories, settings, device="cpu")
    several = stages(found)
    assert found.machine["processes"] == 4
    for name, stage in several.items():
        assert stage.ram == pytest.approx(4 * one[name].ram, rel=0.01)
        assert stage.operations == one[name].operations
        assert stage.seconds == pytest.approx(one[name].seconds / 3)  # there are cores for three
        assert stage.writes == one[name].writes
    overlap, outer = 40 * 6 * 2, 20 * 6 * 2
    assert several["connect: semantic consistency of clap"].reads == 4 * overlap + outer
    tell_plan(found, False)
    assert "this machine (cpu, 4 processes): " in capsys.readouterr().out
    with pytest.raises(ConfigError, match="several processes compute on 'cuda'"):
        plan_of_memories(memories, settings, device="mps")


def test_each_process_keeps_files_of_its_own(monkeypatch):
    spaces = [PlannedSpace(name, 512, 2_400_000, 1000, "float16") for name in "ab"]
    settings = settings_of("c-mcr")
    (alone, together) = (
        connect_stages(*spaces, settings, module.Machine("cpu", started=started), None)[-1]
        for started in (None, Launch(4, 2))
    )
    embeddings = costs.embeddings_bytes(2_400_000, 512, 512, settings)
    assert (alone.ram > embeddings, together.ram < embeddings) == (True, True)
    assert together.writes == alone.writes + 4 * embeddings
    assert "in each of 4 processes) take more than 80% of the RAM" in together.notes[0]


def test_the_first_process_alone_plans(memories, monkeypatch, capsys):
    of_several(2, 2, monkeypatch)
    call = ["connect", *(str(memory.folders[0]) for memory in memories), "--plan", "--device", "cpu", "--json"]
    assert main(call) == 0
    assert json.loads(capsys.readouterr().out)["machine"]["processes"] == 2
    monkeypatch.setenv("RANK", "1")
    assert main(call) == 0
    assert capsys.readouterr().out == ""


def planned_training(memories, out):
    return plan_of_memories(memories, settings_of("c-mcr", epochs=2), device="cpu", out=out).stages[-1]


def test_what_connecting_would_refuse_at_once(memories, tmp_path):
    rng = np.random.default_rng(0)
    taken = tmp_path / "taken"
    taken.write_text("a letter", encoding="utf-8")
    assert "something that is not a cmcr connection is there" in planned_training(memories, taken).problems[0]
    (tmp_path / "other.unfinished").mkdir()
    (tmp_path / "other.unfinished" / "letter").write_text("a letter", encoding="utf-8")
    assert "Move it away" in planned_training(memories, tmp_path / "other").problems[0]
    for name, ids in (("one", ["0"]), ("elsewhere", ["x", "y", "z"])):
        folder = tmp_path / name
        write_memory(folder, rng.normal(size=(len(ids), 6)), space="clap", modality="text", ids=ids)
    outer = [memory for memory in memories if (memory.space, memory.modality) != ("clap", "text")]
    for names, said in (
        (["one"], "at least 2"),
        (["elsewhere"], "0 ids are in both"),
        (["one"] * 2, "the id '0' occurs twice"),
    ):
        texts = cmcr.Memory(*(tmp_path / name for name in names))
        problems = planned_training([*outer, texts], tmp_path / "connection").problems
        assert len(problems) == 1
        assert said in problems[0]


def test_work_that_was_stopped_or_is_under_way_is_told(memories, tmp_path):
    out = tmp_path / "connection"

    def stop(stage, share):
        if stage == "training":
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="40 items are in both"), pytest.raises(KeyboardInterrupt):
        cmcr.connect(*memories, epochs=2, checkpoint=unfinished(out), progress=stop)
    before = sorted(unfinished(out).iterdir())
    found = plan_of_memories(memories, settings_of("c-mcr", epochs=2), device="cpu", out=out)
    assert (found.problems, found.stages[0].writes) == ([], 0)  # what is kept needs no more room
    assert found.stages[-1].notes[0].startswith(f"stopped work is there, {unfinished(out)}, and will be gone on with")
    assert sorted(unfinished(out).iterdir()) == before
    with locked(unfinished(out) / LOCK, "held"):
        assert "another run is at work there" in planned_training(memories, out).problems[0]


def as_memory(manifest):
    write_manifest(manifest.parent, {"format": "cmcr memory", "version": 1})


def of_next_version(manifest):
    write_manifest(manifest.parent, {"format": "cmcr checkpoint", "version": VERSION + 1, "written_by": "cmcr 9.9"})


def cut_short(manifest):
    manifest.write_text("{", encoding="utf-8")


@pytest.mark.filterwarnings("ignore:the overlap:UserWarning")
@pytest.mark.parametrize(
    ("put", "said"),
    [
        (as_memory, "expected a cmcr checkpoint, got "),
        (of_next_version, "Install the cmcr that wrote it"),
        (cut_short, "not valid JSON"),
    ],
)
def test_unfinished_work_that_cannot_be_gone_on_with_is_told(memories, tmp_path, put, said):
    out = tmp_path / "connection"
    unfinished(out).mkdir()
    put(unfinished(out) / MANIFEST)
    training = planned_training(memories, out)
    assert len(training.problems) == 1
    assert said in training.problems[0]
    assert not any("stopped work is there" in note for note in training.notes)
    with pytest.raises(FormatError, match=said):  # as connecting says
        cmcr.connect(*memories, epochs=2, checkpoint=unfinished(out))


def damaged_state(folder):
    write_manifest(
        folder, {"format": "cmcr checkpoint", "version": VERSION, "identity": {}, "sha256": {"step-1": "0" * 64}}
    )
    (folder / "step-1").write_bytes(b"changed")


def row_cut_short(folder):
    write_manifest(folder, {"format": "cmcr checkpoint", "version": VERSION, "identity": {}, "sha256": {}})
    (folder / "left-consistent-0.safetensors").write_bytes(b"short")


@pytest.mark.filterwarnings("ignore:the overlap:UserWarning")
@pytest.mark.parametrize(
    ("put", "said"),
    [
        (damaged_state, "its bytes have changed"),
        (row_cut_short, "Move "),
        (lambda folder: (folder / MANIFEST).mkdir(), "has no config.json"),
        (lambda folder: (folder / MANIFEST).write_bytes(b"\xff"), "not valid JSON"),
        (lambda folder: (folder / LOCK).mkdir(), "expected the file of a lock"),
    ],
)
def test_damaged_work_is_told(memories, tmp_path, put, said):
    out = tmp_path / "connection"
    unfinished(out).mkdir()
    put(unfinished(out))
    problems = planned_training(memories, out).problems
    assert len(problems) == 1
    assert said in problems[0]
    assert str(unfinished(out)) in problems[0]


def test_a_state_that_will_be_dropped_need_not_be_whole(memories, tmp_path):
    unfinished(tmp_path / "connection").mkdir()
    damaged_state(unfinished(tmp_path / "connection"))
    settings = settings_of("c-mcr", epochs=2)
    found = plan_of_memories(memories, settings, device="cpu", out=tmp_path / "connection", anew=True)
    assert found.problems == []
    assert "its state dropped, and trained anew from its rows" in found.stages[-1].notes[0]


def test_memories_of_one_space_must_be_of_one_width(memories, tmp_path):
    texts = next(memory for memory in memories if (memory.space, memory.modality) == ("clip", "text"))
    wide = np.random.default_rng(0).normal(size=(50, 16))
    write_memory(tmp_path / "wide", wide, space="clip", modality="text")
    given = [cmcr.Memory(tmp_path / "wide") if memory is texts else memory for memory in memories]
    for refused in (lambda: planned_training(given, tmp_path / "connection"), lambda: cmcr.connect(*given, epochs=2)):
        with pytest.raises(DimensionError, match=r"is 16 wide.*both must be embeddings of one space"):
            refused()


def test_a_damaged_memory_stands_in_the_way(folder, capsys):
    path = write_recipe(folder)
    out = Path(folder / "clip-clap/texts-in-clip")
    out.mkdir(parents=True)
    (out / MANIFEST).write_text("{", encoding="utf-8")
    assert main(["plan", str(path)]) == 1
    assert "embed clip-clap/texts-in-clip: " in capsys.readouterr().err


def test_products_are_measured():
    for precision in ("float32", "bfloat16"):
        assert gemm.gemm_rate(torch.device("cpu"), precision, seconds=0.0) > 0
