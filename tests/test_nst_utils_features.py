import concurrent.futures
import pickle
import shutil
from copy import deepcopy

import pytest
import torch
from torch import nn

import nst_utils as nst

IMAGE = torch.rand(1, 3, 64, 80, generator=torch.Generator().manual_seed(0))


def extract(arch, *layers, image=IMAGE, **options):
    return nst.FeatureExtractor(arch, layers, **{"weights": None, "precision": "float32"} | options)(image)


@pytest.mark.parametrize("arch, name, node", [
    ("vgg19", "conv4_2", "features.21"), ("vgg19", "relu5_1", "features.29"), ("vgg19", "pool4", "features.27"),
    ("vgg16", "conv4_3", "features.21"), ("vgg11", "relu2_1", "features.4"), ("vgg13_bn", "bn1_2", "features.4"),
    ("vgg19_bn", "conv5_1", "features.40"), ("vgg16_compact", "relu5_1", "features.25"), ("alexnet", "relu3_1", "features.7"),
])
def test_layer_names_of_chains(arch, name, node):
    with torch.device("meta"):
        network = nst.load_network(arch, weights=None)
    assert nst.layer_nodes(network)[name] == node


def test_names_are_in_order_of_evaluation():
    names = list(nst.layer_nodes(nst.load_network("vgg16_compact", weights=None)))
    assert names[:5] == ["conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1"] and names[-1] == "relu5_1"


@pytest.mark.parametrize("arch, layers", [
    ("resnet18", ("layer1.0.bn1", "layer1", "layer2.0.add")), ("googlenet", ("conv1.bn", "inception3a")),
    ("squeezenet1_1", ("features.3.squeeze", "features.4")), ("mobilenet_v3_small", ("features.0", "features.3")),
    ("densenet121", ("features.denseblock1", "features.relu0")),
])
def test_other_networks_of_torchvision(arch, layers):
    maps = extract(arch, *layers)
    assert set(maps) == set(layers) and all(maps[layer].ndim == 4 for layer in layers)


@pytest.mark.parametrize("arch, before, after", [
    ("vgg11", "conv1_1", "relu1_1"), ("vgg11_bn", "bn2_1", "relu2_1"), ("resnet18", "layer1.0.bn1", "layer1.0.relu"),
    ("googlenet", "conv1.bn", "conv1.relu"), ("squeezenet1_1", "features.0", "features.1"),
])
def test_a_relu_does_not_overwrite_the_convolution_before_it(arch, before, after):
    maps = extract(arch, before, after)
    assert maps[before].min() < 0
    assert torch.equal(maps[before].relu(), maps[after])


def test_resnet_sum_is_kept_before_its_relu():
    maps = extract("resnet18", "layer1.0.add", "layer1.0")
    assert maps["layer1.0.add"].min() < 0 and torch.equal(maps["layer1.0.add"].relu(), maps["layer1.0"])


def test_features_equal_the_network_evaluated_by_hand():
    network = nst.load_network("resnet18", weights=None)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        expected = network.bn1(network.conv1((IMAGE - mean) / std))
    assert torch.allclose(extract("resnet18", "bn1")["bn1"], expected, atol=1e-5)


def test_the_network_is_cut_off_after_the_last_layer():
    cut = nst.FeatureExtractor("vgg19", ("conv2_1", "relu1_1"), weights=None, precision="float32")
    assert sum(isinstance(module, nn.Conv2d) for module in cut.body.modules()) == 3
    assert not any(parameter.requires_grad for parameter in cut.parameters())


def test_pools_are_swapped_with_their_geometry():
    for arch, layer, count in (("vgg16_compact", "relu5_1", 4), ("vgg16_compact", "relu3_1", 2), ("googlenet", "inception4a", 6)):
        native = nst.FeatureExtractor(arch, (layer,), weights=None, precision="float32")
        swapped = nst.FeatureExtractor(arch, (layer,), weights=None, precision="float32", pooling="avg")
        assert len(swapped.swapped_pools) == count and not native.swapped_pools
        for name in swapped.swapped_pools:
            old, new = native.body.get_submodule(name), swapped.body.get_submodule(name)
            assert isinstance(new, nn.AvgPool2d)
            assert (old.kernel_size, old.stride, old.padding, old.ceil_mode) == (new.kernel_size, new.stride, new.padding,
                                                                                   new.ceil_mode)
        assert native(IMAGE)[layer].shape == swapped(IMAGE)[layer].shape
        assert not torch.equal(native(IMAGE)[layer], swapped(IMAGE)[layer])


def test_average_pools_become_max_pools():
    assert nst.FeatureExtractor("densenet121", ("features.transition1",), weights=None, pooling="max").swapped_pools
    assert not nst.FeatureExtractor("vgg11", ("relu3_1",), weights=None, pooling="max").swapped_pools


@pytest.mark.parametrize("arch, layer", [("vgg16_compact", "relu5_1"), ("googlenet", "inception4a"), ("alexnet", "relu3_1")])
def test_the_smallest_size_is_known_and_true(arch, layer):
    extractor = nst.FeatureExtractor(arch, (layer,), weights=None, precision="float32")
    side = extractor.min_size
    assert extractor(torch.rand(1, 3, side, side))[layer].numel() > 0
    with pytest.raises(ValueError, match=rf"{side} x {side - 1} pixels, but {arch} needs at least {side}"):
        extractor(torch.rand(1, 3, side - 1, side))


def test_a_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"not \(1, 4, 64, 64\)"):
        extract("vgg16_compact", "relu1_1", image=torch.rand(1, 4, 64, 64))


def test_shapes_without_computing():
    extractor = nst.FeatureExtractor("resnet18", ("relu", "layer2"), weights=None)
    assert extractor.shapes(64, 80) == {layer: tuple(maps.shape[1:]) for layer, maps in extractor(IMAGE).items()}


@pytest.mark.parametrize("arch, layer", [("convnext_tiny", "features.1.0.block.2"), ("resnet18", "fc")])
def test_a_layer_without_maps(arch, layer):
    with pytest.raises(ValueError, match=f"The layer '{layer}' of .* gives no maps \\(N, C, H, W\\)"):
        nst.FeatureExtractor(arch, [layer], weights=None)


@pytest.mark.parametrize("layers, message", [
    (("conv4_9",), "nearest: .*conv4_"), (("Relu1_1",), "nearest: .*relu1_1"), ((), "At least one"),
])
def test_unknown_layers(layers, message):
    with pytest.raises(ValueError, match=message):
        nst.FeatureExtractor(layers=layers, weights=None)


@pytest.mark.parametrize("options, message", [
    ({"arch": "vgg91"}, "nearest: .*vgg19"), ({"pooling": "mean"}, "pooling is"), ({"precision": "half"}, "precision is"),
])
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        nst.FeatureExtractor(**{"weights": None} | options)


def test_random_weights_are_seeded_and_leave_the_global_generator_alone():
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    maps = [extract("vgg16_compact", "relu2_1", seed=seed)["relu2_1"] for seed in (1, 1, 2)]
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(maps[0], maps[1]) and not torch.equal(maps[0], maps[2])


def test_networks_built_in_threads_have_the_weights_of_their_seed():
    expected = [extract("vgg16_compact", "relu2_1", seed=seed)["relu2_1"] for seed in range(4)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        built = list(pool.map(lambda seed: extract("vgg16_compact", "relu2_1", seed=seed)["relu2_1"], [0, 1, 2, 3] * 3))
    assert all(torch.equal(one, expected[k % 4]) for k, one in enumerate(built))


def test_whole_numbers_are_no_picture():
    with pytest.raises(ValueError, match="not .* of torch.uint8"):
        extract("vgg16_compact", "relu1_1", image=(IMAGE * 255).to(torch.uint8))


def test_bfloat16_is_close_to_float32_and_can_be_forced(monkeypatch):
    exact, rounded = (extract("vgg16_compact", "relu4_1", weights="DEFAULT", precision=precision)["relu4_1"].float()
                      for precision in ("float32", "bfloat16"))
    assert 0 < (exact - rounded).norm() < 0.02 * exact.norm()
    for precision, dtype in nst.PRECISIONS.items():
        monkeypatch.setenv("NST_PRECISION", precision)
        assert nst.FeatureExtractor(layers=("relu1_1",), weights=None).dtype == dtype


def test_the_shipped_network_is_a_plain_state_dict():
    path = nst.DATA / "weights" / "vgg16_compact.pt"
    state = torch.load(path, weights_only=True)
    assert path.stat().st_size <= 6_000_000
    assert all(name.startswith("features.") and value.isfinite().all() for name, value in state.items())


# -- torchvision's own loading, on files made here ---------------------------------------------------------------

ARCH = "squeezenet1_1"  # the smallest file among torchvision's


@pytest.fixture
def cache(offline):
    """Without a network: the path at which torchvision looks for its weights."""
    offline.mkdir(parents=True)
    return offline / nst.models.get_model_weights(ARCH).DEFAULT.url.rpartition("/")[2]


def test_cached_weights_are_loaded_by_torchvision(cache):
    torch.save(nst.load_network(ARCH, weights=None, seed=5).state_dict(), cache)
    expected, loaded = extract(ARCH, "features.4", seed=5), extract(ARCH, "features.4", weights="DEFAULT")
    assert torch.equal(expected["features.4"], loaded["features.4"])


def test_without_cache_and_network_the_error_says_what_to_do(cache):
    with pytest.raises(ConnectionError, match=rf"put https://.*{cache.name} at .*vgg16_compact"):
        extract(ARCH, "features.4", weights="DEFAULT")


def test_truncated_wrong_and_dangerous_files(cache, tmp_path):
    torch.save(nst.load_network(ARCH, weights=None).state_dict(), cache)
    whole = cache.read_bytes()
    cache.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged"):
        extract(ARCH, "features.4", weights="DEFAULT")
    torch.save(nst.load_network("squeezenet1_0", weights=None).state_dict(), cache)
    with pytest.raises(ValueError, match=f"does not belong to {ARCH}"):
        extract(ARCH, "features.4", weights="DEFAULT")
    torch.save(Dangerous(tmp_path / "executed"), cache)
    with pytest.raises(ValueError, match="damaged"):
        extract(ARCH, "features.4", weights="DEFAULT")
    assert not (tmp_path / "executed").exists()


def test_convolutions_alone_are_weights_enough_where_the_classifier_is_cut_off(tmp_path):
    whole = nst.load_network("alexnet", weights=None, seed=3).state_dict()
    torch.save({name: value for name, value in whole.items() if name.startswith("features.")}, tmp_path / "convolutions.pt")
    expected, loaded = extract("alexnet", "relu2_1", seed=3), extract("alexnet", "relu2_1", weights=tmp_path / "convolutions.pt")
    assert torch.equal(expected["relu2_1"], loaded["relu2_1"])
    whole.pop("features.3.weight")
    torch.save(whole, tmp_path / "hole.pt")
    with pytest.raises(ValueError, match="does not hold the weights of alexnet.*features.3.weight"):
        extract("alexnet", "relu2_1", weights=tmp_path / "hole.pt")


def test_vgg16_compact_has_the_layers_and_channels_of_vgg16_and_a_third_of_its_weights():
    both = [nst.load_network(arch, weights=None) for arch in ("vgg16_compact", "vgg16")]
    layers = list(nst.layer_nodes(both[0]))
    assert layers[-1] == "relu5_1" and layers == list(nst.layer_nodes(both[1]))[:len(layers)]
    shapes = [nst.FeatureExtractor(arch, layers, weights=None).shapes(64, 96) for arch in ("vgg16_compact", "vgg16")]
    assert shapes[0] == shapes[1]
    convolutions = [sum(part.weight.numel() for part in network.features[:25].modules() if isinstance(part, nn.Conv2d))
                    for network in both]
    assert convolutions[0] < convolutions[1] / 3


def test_vgg16_compact_sees_no_edge_at_the_border():
    maps = extract("vgg16_compact", "relu1_1", "relu2_1", "relu3_1", image=torch.full((1, 3, 32, 32), 0.7))
    assert all(feature.flatten(2).std(2).max() < 1e-4 * feature.abs().max() for feature in maps.values())


class Dangerous:
    """Pickled code: loading it unsafely would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_weights_from_a_path(tmp_path):
    torch.save(nst.load_network("googlenet", weights=None, seed=5).state_dict(), tmp_path / "g.pth")
    network = nst.load_network("googlenet", weights=tmp_path / "g.pth")
    assert network.transform_input  # torchvision's GoogLeNet weights expect it
    with pytest.raises(FileNotFoundError, match="no weights file"):
        nst.load_network(ARCH, weights=tmp_path / "none.pth")
    shutil.copy(tmp_path / "g.pth", tmp_path / "wrong.pth")
    with pytest.raises(ValueError, match=f"does not hold the weights of {ARCH}"):
        nst.load_network(ARCH, weights=tmp_path / "wrong.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "g.pth").read_bytes()[:5000])
    with pytest.raises(ValueError, match="can't be read as weights"):
        nst.load_network("googlenet", weights=tmp_path / "cut.pth")


@pytest.mark.parametrize("arch, layer", [("vgg11", "relu2_1"), ("resnet18", "layer1")])
def test_a_network_that_somebody_built_is_copied_with_its_weights(arch, layer):
    network = nst.load_network(arch, weights=None, seed=3).train()
    extractor = nst.FeatureExtractor(network, (layer,), precision="float32", pooling="avg")
    named = nst.FeatureExtractor(arch, (layer,), weights=None, seed=3, precision="float32", pooling="avg")
    assert torch.equal(extractor(IMAGE)[layer], named(IMAGE)[layer]) and extractor.arch == type(network).__name__
    assert all(value.requires_grad for value in network.parameters()) and network.training  # left as it was
    assert any(isinstance(module, torch.nn.MaxPool2d) for module in network.modules())
    assert torch.equal(pickle.loads(pickle.dumps(extractor))(IMAGE)[layer], extractor(IMAGE)[layer])


@pytest.mark.parametrize("arch, layer", [("vgg16_compact", "relu2_1"), ("resnet18", "layer1")])
def test_an_extractor_can_be_sent_to_another_process(arch, layer):
    extractor = nst.FeatureExtractor(arch, (layer,), weights=None, precision="float32", pooling="avg", seed=4)
    with torch.no_grad():
        for value in extractor.parameters():  # trained further, say
            value.mul_(0.5)
    assert torch.equal(deepcopy(extractor)(IMAGE)[layer], extractor(IMAGE)[layer])
    copy = pickle.loads(pickle.dumps(extractor))
    assert torch.equal(copy(IMAGE)[layer], extractor(IMAGE)[layer]) and copy.swapped_pools == extractor.swapped_pools
