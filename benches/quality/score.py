"""Scores what the bench `quality` left in a folder: PESQ (ITU-T P.862.1 and P.862.2, as MOS-LQO) of
each sentence that was heard against what was said, and the delay; prints tables, and plots them.

    score.py FOLDER [PICTURE.svg]

Rows of heard.tsv: name, network, variant, rate, start and length of the sentence in said-RATE.wav,
file, start and length of the clip in it, samples of the clip before the sentence was due, and the
mean time in milliseconds by which its samples came after their place in the stream.
"""

import collections
import multiprocessing
import pathlib
import sys

import numpy as np
from pesq import NoUtterancesError, pesq
from scipy.io import wavfile
from scipy.signal import correlate, resample_poly

NETWORKS = ["1 % loss", "3 % loss", "5 % loss", "3 % in bursts"]
LOSSLESS = ["clean", "jitter", "drift +", "drift -"]
COST_MOST = 0.05
GAIN_LEAST = 0.3
FOLDER = pathlib.Path()


def score(row):
    """The key of a row, its MOS and its delay in milliseconds."""
    name, network, variant, hz, start, length, file, at, size, before, wait = row.split("\t")
    hz, start, length, at, size, before = map(int, (hz, start, length, at, size, before))
    _, said = wavfile.read(FOLDER / f"said-{hz}.wav", mmap=True)
    _, heard = wavfile.read(FOLDER / file, mmap=True)
    said = said[start : start + length].astype(np.float64)
    clip = heard[at : at + size].astype(np.float64)
    match = correlate(clip, said, mode="valid")
    found = int(np.argmax(match))
    delay = (found - before) * 1000 / hz + float(wait)
    around = hz // 4
    said = np.pad(said, around)
    clip = np.pad(clip, around)[found : found + len(said)]
    scale, band = (8_000, "nb") if hz == 8_000 else (16_000, "wb")
    if hz != scale:
        said, clip = (resample_poly(pcm, scale, hz) for pcm in (said, clip))
    as_samples = lambda pcm: np.clip(pcm, -32768, 32767).astype(np.int16)
    try:
        mos = pesq(scale, as_samples(said), as_samples(clip), band)
    except NoUtterancesError:
        mos = 1.0
    return (name, network, variant), mos, delay


def gather(rows):
    scores = collections.defaultdict(list)
    with multiprocessing.Pool() as pool:
        for key, mos, delay in pool.imap_unordered(score, rows, chunksize=20):
            scores[key].append((mos, delay))
    return {key: np.mean(values, axis=0) for key, values in scores.items()}


def table(title, heads, lines):
    print(f"\n{title}\n")
    widths = [max(len(str(line[i])) for line in [heads, *lines]) for i in range(len(heads))]
    for line in [heads, *lines]:
        first, *rest = (str(word) for word in line)
        print(first.ljust(widths[0]), *(w.rjust(n) for w, n in zip(rest, widths[1:])), sep="  ")


def print_all(means, names, echoes):
    if names:
        print_session(means, names)
    if echoes:
        print_echoes(means, echoes)
    if names:
        print_goals(means, names)


def print_echoes(means, names):
    """Through the daemon and real sockets, beside the same packets under the virtual clock."""
    mos = lambda *key: means.get(key, (np.nan, np.nan))[0]
    delay = lambda *key: means.get(key, (np.nan, np.nan))[1]
    networks = ["clean", *NETWORKS, *LOSSLESS[1:]]
    pair = lambda name, network: " / ".join(
        "void" if np.isnan(value) else f"{value:.2f}"
        for value in (mos(name, network, "echo"), mos(name, network, "echo session"))
    )
    table(
        "Echo through the whole daemon and real sockets, both codec passes, MOS: the daemon / the session "
        "alone with the same packets; void where the phone was late",
        ["codec", "codec alone", *networks],
        [
            [name, f"{mos(name, 'clean', 'echo alone'):.2f}", *(pair(name, network) for network in networks)]
            for name in names
        ],
    )
    trip = lambda name, network: " / ".join(
        "void" if np.isnan(value) else f"{value:.0f}"
        for value in (delay(name, network, "echo"), delay(name, network, "echo session"))
    )
    table(
        "Round trip, ms: from the phone's mouth to its ear, the network's 20 ms and the packet included",
        ["codec", *networks],
        [[name, *(trip(name, network) for network in networks)] for name in names],
    )
    lower = [
        (mos(name, network, "echo session") - mos(name, network, "echo"), name, network)
        for name in names
        for network in networks
        if not np.isnan(mos(name, network, "echo"))
    ]
    if lower:
        mean = np.mean([cost for cost, *_ in lower])
        cost, name, network = max(lower)
        print(f"\n{len(lower)} echoes: the daemon is {mean:.3f} below the session on average, at most {cost:.2f} ({name}, {network})")
        clean = [mos(name, "clean", "echo alone") - mos(name, "clean", "echo") for name in names]
        clean = [cost for cost in clean if not np.isnan(cost)]
        if clean:
            print(f"clean, two passes cost at most {max(clean):.2f} beside the codec alone")


def print_session(means, names):
    mos = lambda *key: means.get(key, (np.nan, np.nan))[0]
    delay = lambda *key: means.get(key, (np.nan, np.nan))[1]
    table(
        "Without loss, MOS: the codec alone and through the media path",
        ["codec", "alone", "clean", "cost", "jitter", "drift +", "drift -", "to caller: alone", "through", "cost"],
        [
            [
                name,
                f"{mos(name, 'clean', 'alone'):.2f}",
                f"{mos(name, 'clean', 'daemon'):.2f}",
                f"{mos(name, 'clean', 'alone') - mos(name, 'clean', 'daemon'):.2f}",
                *(f"{mos(name, network, 'daemon'):.2f}" for network in LOSSLESS[1:]),
                f"{mos(name, 'back', 'alone'):.2f}",
                f"{mos(name, 'back', 'daemon'):.2f}",
                f"{mos(name, 'back', 'alone') - mos(name, 'back', 'daemon'):.2f}",
            ]
            for name in names
        ],
    )
    table(
        "With loss, MOS: through the media path / codec with ideal timing / silence in place of what is lost",
        ["codec", *NETWORKS, "gain at 3 %"],
        [
            [
                name,
                *(
                    " / ".join(f"{mos(name, network, v):.2f}" for v in ("daemon", "ideal", "silence"))
                    for network in NETWORKS
                ),
                f"{mos(name, '3 % loss', 'daemon') - mos(name, '3 % loss', 'silence'):.2f}",
            ]
            for name in names
        ],
    )
    table(
        "Delay, ms: from mouth to agent, the network's 20 ms and the packet included; the codec's own",
        ["codec", "alone", *LOSSLESS, "3 % loss"],
        [
            [
                name,
                f"{delay(name, 'clean', 'alone'):.1f}",
                *(f"{delay(name, network, 'daemon'):.1f}" for network in LOSSLESS),
                f"{delay(name, '3 % loss', 'daemon'):.1f}",
            ]
            for name in names
        ],
    )


def print_goals(means, names):
    mos = lambda *key: means.get(key, (np.nan, np.nan))[0]
    misses = []
    for name in names:
        for way in ("clean", "back"):
            cost = mos(name, way, "alone") - mos(name, way, "daemon")
            if cost > COST_MOST:
                misses.append(f"{name}, {way}: costs {cost:.2f}")
        gain = mos(name, "3 % loss", "daemon") - mos(name, "3 % loss", "silence")
        if gain < GAIN_LEAST:
            misses.append(f"{name}: concealment gains {gain:.2f} at 3 %")
    goals = f"goals: cost at most {COST_MOST}, gain at 3 % loss at least {GAIN_LEAST}"
    print(f"\n{goals}: {'; '.join(misses) or 'all met'}")


def plot(means, names, picture):
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams.update({"svg.fonttype": "none", "font.size": 9, "svg.hashsalt": "voxedge"})
    mos = lambda *key: means.get(key, (np.nan, np.nan))[0]
    figure, axes = plt.subplots(figsize=(9.6, 4.2))
    places = np.arange(len(names))
    for network, shift, colour in [("1 % loss", -0.27, "#7fb069"), ("3 % loss", -0.09, "#e6a532"), ("5 % loss", 0.09, "#d1495b"), ("3 % in bursts", 0.27, "#6c5b9e")]:
        high = [mos(name, network, "daemon") for name in names]
        low = [mos(name, network, "silence") for name in names]
        axes.vlines(places + shift, low, high, color=colour, linewidth=3, alpha=0.45)
        axes.plot(places + shift, high, "o", color=colour, markersize=5, label=f"{network}, concealed")
        axes.plot(places + shift, low, "_", color=colour, markersize=7)
    clean = [mos(name, "clean", "daemon") for name in names]
    alone = [mos(name, "clean", "alone") for name in names]
    jitter = [mos(name, "jitter", "daemon") for name in names]
    for place, level in zip(places, alone):
        axes.hlines(level, place - 0.4, place + 0.4, color="#222222", linewidth=1.2)
    axes.plot(places, clean, "D", color="#222222", markersize=4.5, label="clean (line: codec alone)")
    axes.plot(places, jitter, "x", color="#2274a5", markersize=6, label="jitter")
    axes.plot([], [], "_", color="#777777", markersize=7, label="silence in place of what is lost")
    narrow = sum(1 for name in names if (name, "nb") in means)
    if 0 < narrow < len(names):
        axes.axvline(narrow - 0.5, color="#999999", linewidth=0.8, linestyle=":")
        axes.text(narrow - 0.6, 4.88, "narrow band (P.862.1)", ha="right", va="top", color="#555555")
        axes.text(narrow - 0.4, 4.88, "wide band (P.862.2)", ha="left", va="top", color="#555555")
    axes.set_xticks(places, names, rotation=35, ha="right")
    axes.set_ylabel("PESQ, MOS-LQO")
    axes.set_ylim(1, 4.9)
    axes.grid(axis="y", linewidth=0.4)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="upper center", ncols=4, frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0, 1, 0.9))
    figure.savefig(picture, metadata={"Date": None})


def main():
    global FOLDER
    FOLDER = pathlib.Path(sys.argv[1])
    rows = (FOLDER / "heard.tsv").read_text().splitlines()
    means = gather(rows)
    names, echoes = [], []
    for row in rows:
        name, network, variant, hz, *_ = row.split("\t")
        known = echoes if variant.startswith("echo") else names
        if name not in known:
            known.append(name)
        if hz == "8000" and network == "clean":
            means[name, "nb"] = True
    with open(FOLDER / "scores.tsv", "w") as out:
        for key, value in sorted((key, value) for key, value in means.items() if len(key) == 3):
            print(*key, f"{value[0]:.3f}", f"{value[1]:.1f}", sep="\t", file=out)
    print_all(means, names, echoes)
    if len(sys.argv) > 2 and names:
        plot(means, names, sys.argv[2])


if __name__ == "__main__":
    main()
