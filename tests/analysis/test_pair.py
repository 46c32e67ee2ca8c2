import math
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import torch
from gahb_analysis import models
from gahb_analysis.pair import Pair, check_pair, compare, draw
from gahb_analysis.pairs import PRINTED, figure, overtaking, overtakings, pairs_table

from gahb.errors import UserError
from gahb.models.layers import Denoiser
from gahb.tracking import lookup
from gahb.trial import Trial
from tests.helpers import TINY, Ended, Place, Towards

CPU = torch.device("cpu")


def test_pair_command(command: Callable[..., Ended], finished: Place) -> None:
    arguments = ("pair", "16x16-N64-A", "16x16-N64-B", "--samples", "8", "--json", *finished.flags)
    data = command("gahb-analyze", *arguments).json
    for key in ("cosine", "cosine_centered", "closest_train", "closest_train_centered", "closest_other_centered"):
        assert data[key].keys() == {"mean", "median", "quantiles"}
        assert -1 <= data[key]["quantiles"]["0.05"] <= data[key]["median"] <= data[key]["quantiles"]["0.95"] <= 1 + 1e-6
    assert data["samples"] == 8 and data["diverged"] == 0
    (run,) = [r for r in finished.record.runs("pair") if r.run_id == data["run_id"]]
    linked = {run.tags["gahb.of.0"], run.tags["gahb.of.1"]}
    assert linked == {lookup.find(finished.record, f"16x16-N64-{s}").run_id for s in "AB"}
    assert run.metrics["cosine_mean"] == pytest.approx(data["cosine"]["mean"]) and run.state == "finished"
    folder = finished.record.artifacts(run.run_id)
    assert {file.name for file in folder.iterdir()} == {
        "pair.csv",
        "pair.png",
        "pair.svg",
        "pair.safetensors",
        "images",
    }
    table = pd.read_csv(folder / "pair.csv")
    assert len(table) == 8 and table["cosine"].mean() == pytest.approx(data["cosine"]["mean"])
    ended = command("gahb-analyze", *arguments[:5], *finished.flags)
    assert ended.out.split()[:7] == ["measure", "mean", "0.05", "0.25", "median", "0.75", "0.95"]
    assert ended.out.splitlines()[-1].startswith("swap gap, by which each is better on its own training images")
    assert re.search("in MLflow: .*gahb-sweep ui tiny", ended.err)


def test_a_model_paired_with_itself_is_one(finished: Place) -> None:
    a = finished.model("16x16-N64-A")
    pair = compare(a, a, 6, 0, CPU)
    np.testing.assert_allclose(pair.table["cosine"], 1, atol=1e-5)
    np.testing.assert_allclose(pair.table["cosine_centered"], 1, atol=1e-5)
    others = (np.corrcoef(pair.shown[1].flatten(1)).sum(axis=1) - 1) / 5
    np.testing.assert_allclose(pair.table["mismatched_centered"], others, atol=1e-5)
    np.testing.assert_allclose(pair.table["excess"], 1 - others, atol=1e-5)


def test_models_that_always_draw_one_image_give_what_can_be_computed_by_hand(finished: Place) -> None:
    a, b = (finished.model(f"16x16-N64-{subset}") for subset in "AB")
    images_a, images_b = (model.train_images.double().numpy().reshape(64, -1) / 65535 for model in (a, b))
    drawn_a, drawn_b = (images_a[5] + images_a[6]) / 2, (images_b[9] + images_b[8]) / 2

    def model_of(model: models.TrialModel, image: np.ndarray) -> models.TrialModel:
        return replace(model, denoiser=Denoiser(Towards(torch.from_numpy(image).float().view(1, 16, 16))))

    pair = compare(model_of(a, drawn_a), model_of(b, drawn_b), 3, 0, CPU)

    def cosines(image: np.ndarray, images: np.ndarray) -> np.ndarray:
        return images @ image / np.linalg.norm(image) / np.linalg.norm(images, axis=1)

    def centred(images: np.ndarray) -> np.ndarray:
        return images - images.mean(axis=-1, keepdims=True)

    (own, own_centred), (other, other_centred) = (
        [(cosines(f(drawn_a), f(x)).max() + cosines(f(drawn_b), f(y)).max()) / 2 for f in (np.asarray, centred)]
        for x, y in ((images_a, images_b), (images_b, images_a))
    )
    expected = {
        "cosine": cosines(drawn_a, drawn_b[None])[0],
        "cosine_centered": np.corrcoef(drawn_a, drawn_b)[0, 1],
        "excess": 0.0,
        "closest_train": own,
        "closest_other": other,
        "closest_train_centered": own_centred,
        "closest_other_centered": other_centred,
        "closest_a": cosines(drawn_a, images_a).argmax(),
        "closest_b": cosines(drawn_b, images_b).argmax(),
    }
    assert own > other + 0.001
    for column, value in expected.items():
        np.testing.assert_allclose(pair.table[column], value, atol=1e-3)

    def psnr(image: np.ndarray, images: np.ndarray) -> float:
        return float(np.mean(-10 * np.log10(np.square(images[:32] - image).mean(axis=1))))  # as many as are held out

    swapped = psnr(drawn_a, images_b) + psnr(drawn_b, images_a)
    gap = (psnr(drawn_a, images_a) + psnr(drawn_b, images_b) - swapped) / 2
    assert abs(gap) > 0.05 and pair.swap_gap == pytest.approx(gap, abs=1e-3)
    assert pair.swap_gap_db == pytest.approx(gap, abs=1e-3)  # the same at every noise level


def test_memorisation_and_generalisation_look_different(finished: Place) -> None:
    few, many = (compare(finished.model(f"16x16-N{n}-A"), finished.model(f"16x16-N{n}-B"), 16, 0, CPU) for n in (1, 64))
    assert few.swap_gap > many.swap_gap + 1
    few_summary, many_summary = few.summary(), many.summary()
    assert few_summary["closest_train"]["mean"] > few_summary["closest_other"]["mean"]
    assert many_summary["excess"]["mean"] > few_summary["excess"]["mean"]
    models_of_many = finished.model("16x16-N64-A"), finished.model("16x16-N64-B")
    samples = [drawn.images.flatten(1) for drawn in draw(*models_of_many, 16, 0, CPU, None)]
    correlation = np.corrcoef(*samples)[:16, 16:]  # of every sample of A with every sample of B
    chance = (correlation.sum(axis=1) - correlation.diagonal()) / 15
    np.testing.assert_allclose(many.table["excess"], correlation.diagonal() - chance, atol=1e-5)


def test_pairs_that_share_images_or_data_only_in_name_are_refused(finished: Place) -> None:
    a, b, both = (finished.model(name) for name in ("16x16-N1-A", "16x16-N1-B", "16x16-N64-A"))
    check_pair(a, b)
    check_pair(b, both)
    with pytest.raises(UserError, match="1 common images"):
        check_pair(a, both)
    check_pair(a, both, force=True)
    rough = Trial.of({**TINY, "n_train": 1, "alpha": 3.0}).dataset
    rougher = replace(a, card={**a.card, "data_hash": rough.hash(finished.store)})
    smaller = replace(a, train_images=a.train_images[..., :8, :8])
    with pytest.raises(UserError, match="different data sets"):
        check_pair(b, rougher)
    with pytest.raises(UserError, match="nothing to compare"):
        check_pair(b, smaller, force=True)


def test_changed_images_are_noticed(finished: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "subset_hash", lambda images: "another")
    with pytest.raises(UserError, match="not those it was trained on"):
        finished.model("16x16-N1-A")


def test_diverged_samples_are_counted_and_left_out(finished: Place) -> None:
    a, b = finished.model("16x16-N1-A"), finished.model("16x16-N1-B")
    half = torch.zeros(10, dtype=torch.bool)
    half[:5] = True

    pair = compare(a, b, 10, 0, CPU)
    table = pair.table.assign(converged=half.numpy(), cosine=[1.0] * 5 + [float("nan")] * 5)
    summary = replace(pair, table=table).summary()
    assert summary["diverged"] == 5 and summary["cosine"]["mean"] == 1


def test_pairs_command(command: Callable[..., Ended], finished: Place) -> None:
    data = command("gahb-analyze", "pairs", "tiny", "--samples", "8", "--json", *finished.flags).json
    assert [(row["pair"], row["n_train"]) for row in data["pairs"]] == [("16x16-N1", 1), ("16x16-N64", 64)]
    (run,) = [r for r in lookup.analyses(finished.record, "tiny") if r.run_id == data["run_id"]]
    names = {file.name for file in finished.record.artifacts(run.run_id).iterdir()}
    assert names == {"pairs.csv", "samples.csv", "n_overtake.csv", "pairs.png", "pairs.svg", "images"}
    few, many = data["pairs"]
    (row,) = data["n_overtake"]
    for ending in ("", "_centered"):
        ahead = [pair[f"cosine{ending}"] - pair[f"closest_train{ending}"] for pair in (few, many)]
        n, bound = row[f"n_overtake{ending}"], row[f"bound{ending}"]
        assert (n is None) == (bound is not None)
        assert ahead[0] < 0 and (bound == "> 64" if ahead[1] < 0 else 1 < n < 64)
    assert run.params["h"] == "0.01" and run.params["growing"] == "True" and run.params["sigma_end"] == "0.05"
    header, *rows, answer = command("gahb-analyze", "pairs", "tiny", "--samples", "8", *finished.flags).out.splitlines()
    assert header.split() == list(PRINTED[:-1]) and len(rows) == 2 and len(header) < 120
    assert answer.startswith("16×16: ") and "closest training image at N×" in answer


def test_a_comparison_comes_back_from_its_arrays(finished: Place) -> None:
    pair = compare(finished.model("16x16-N1-A"), finished.model("16x16-N1-B"), 10, 0, CPU)
    again = Pair.of(pair.a, pair.b, pair.arrays())
    pd.testing.assert_frame_equal(again.table, pair.table, check_exact=True)
    assert all(torch.equal(one, other) for one, other in zip(again.shown, pair.shown, strict=True))
    assert again.summary() == pair.summary() and len(pair.shown[0]) == 8


def test_pairs_of_the_record_are_not_computed_again_unless_they_are_damaged(
    command: Callable[..., Ended], copied: Place
) -> None:
    few = ("--samples", "4", "--json", *copied.flags)
    data = command("gahb-analyze", "pair", "16x16-N1-A", "16x16-N1-B", *few).json
    file = copied.record.artifacts(data["run_id"]) / "pair.safetensors"
    arrays = safetensors.numpy.load_file(file)
    assert arrays["cosine"].mean() == pytest.approx(data["cosine"]["mean"])
    safetensors.numpy.save_file({**arrays, "cosine": np.full(4, 0.125)}, file)

    def first_pair(*options: str) -> tuple[float, str]:
        ended = command("gahb-analyze", "pairs", "tiny", *(options or few))
        return ended.json["pairs"][0]["cosine"], ended.err

    cosine, err = first_pair()
    assert cosine == 0.125 and "1 of 2 pairs are in the record already" in err and "[1/1] pair 16x16-N64: cosine" in err
    assert "already" not in first_pair("--samples", "5", *few[2:])[1], "with other settings"
    file.write_bytes(file.read_bytes()[:-9])
    cosine, err = first_pair()
    assert cosine == pytest.approx(data["cosine"]["mean"]) and "[2/2] pair" in err


def test_the_similarity_of_a_pair_overtakes_where_the_lines_cross() -> None:
    assert overtaking([1, 10, 100, 1000], [-0.9, -0.5, -0.1, 0.3]) == (pytest.approx(100 * 10**0.25), None)
    assert overtaking([1, 10, 100], [-0.9, 0.2, -0.2])[1] == "> 100"
    assert overtaking([10, 100], [0.1, 0.2])[1] == "< 10"
    table = pd.DataFrame(
        {
            "curve": ["20×20"] * 4 + ["40×40"] * 2, "resolution": [20] * 4 + [40] * 2,
            "n_train": [10, 10, 1000, 1000, 10, 1000],
            "cosine": [0.5, 0.7, 0.9, 0.9, 0.8, 0.9], "closest_train": [0.8, 0.8, 0.7, 0.7, 0.9, 0.95],
            "cosine_centered": [0.0, 0.2, 0.8, 0.8, 0.5, 0.9], "closest_train_centered": [0.5, 0.5, 0.2, 0.2, 0.9, 0.5],
        }
    )  # fmt: skip
    small, large = overtakings(table).to_dict("records")
    assert small["n_overtake"] == pytest.approx(100) and small["n_overtake_centered"] == pytest.approx(10 * 100**0.4)
    assert math.isnan(large["n_overtake"]) and large["bound"] == "> 1000"
    assert large["n_overtake_centered"] == pytest.approx(100) and large["bound_centered"] is None


def test_the_pictures_of_pairs_have_legends_and_plain_n(finished: Place) -> None:
    pairs = [compare(finished.model(f"16x16-N{n}-A"), finished.model(f"16x16-N{n}-B"), 2, 0, CPU) for n in (1, 64)]
    table = pairs_table(pairs, {run.run_id: run.metrics for pair in pairs for run in (pair.a, pair.b)})
    picture = figure(pairs, table, overtakings(table))
    (below,) = picture.subfigs
    (legend,) = below.legends
    histograms = ["samples of two denoisers", "sample and closest training image"]
    assert [text.get_text() for text in legend.get_texts()] == histograms
    for axes in below.axes:
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "64"]


def test_the_sampler_can_be_set_and_is_recorded(command: Callable[..., Ended], finished: Place) -> None:
    names = ("16x16-N64-A", "16x16-N64-B")
    flags = ("--samples", "3", "--json", *finished.flags)
    settings = ("--h", "0.05", "--fixed", "--beta", "1", "--sigma-start", "0.8", "--sigma-end", "0.1")
    data = command("gahb-analyze", "pair", *names, *settings, *flags).json
    (run,) = [r for r in finished.record.runs("pair") if r.run_id == data["run_id"]]
    expected = {"h": "0.05", "growing": "False", "beta": "1.0", "sigma_start": "0.8", "sigma_end": "0.1"}
    assert expected.items() <= run.params.items()
    steps = pd.read_csv(finished.record.artifacts(run.run_id) / "pair.csv")["steps_a"]
    assert steps.min() >= 0.5 * math.log(8) / 0.05  # σ can fall by a factor 1 - h a step, and f moves too
    default = command("gahb-analyze", "pair", *names, *flags).json
    assert default["cosine_centered"]["mean"] != data["cosine_centered"]["mean"]
    for kind in ("pair", "trajectories"):
        for wrong in (("--h", "0"), ("--beta", "1.5"), ("--sigma-end", "2"), ("--h", "nan")):
            ended = command("gahb-analyze", kind, *names, *wrong, *finished.flags)
            assert ended.code == 2 and wrong[0].strip("-") in ended.err and ended.err.count("\n") == 1
