import logging
import traceback
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.pixels import get_decoder
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from dpmed.data.decoding import UnreadableImageError, read_pixels
from dpmed.data.preprocessing import Preprocessing

SETTING = Preprocessing(image_size=32)
NO_WINDOW = Preprocessing(image_size=32, apply_window=False)
SECRETS = ("DOE^JANE", "MRN-4711", "19700102", "SECRET WARD")
TEN_BIT = np.linspace(0, 1023, 48 * 64).round().astype(np.uint16).reshape(48, 64)


def dicom(
    pixels, *, syntax=ExplicitVRLittleEndian, photometric="MONOCHROME2", bits=None, **elements
):
    """A file with patient elements, so that every test could leak them."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("x", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.PatientName, dataset.PatientID = SECRETS[:2]
    dataset.PatientBirthDate, dataset.StudyDescription = SECRETS[2:]
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = pixels.dtype.itemsize * 8
    dataset.BitsStored = bits or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for name, value in elements.items():
        setattr(dataset, name, value)
    if syntax != ExplicitVRLittleEndian:
        dataset.compress(syntax, generate_instance_uid=False)
    return dataset


def write(folder, dataset, name="a.dcm"):
    dataset.save_as(folder / name, enforce_file_format=True)
    return folder / name


def read(folder, dataset, setting=SETTING):
    return read_pixels(write(folder, dataset), setting)


def test_stored_bits_span_the_grey_scale(tmp_path):
    found = read(tmp_path, dicom(TEN_BIT, bits=10))
    assert found.dtype == np.uint16
    np.testing.assert_allclose(found, TEN_BIT * (65535 / 1023), atol=1)


def test_eight_bits_stay_as_they_are(tmp_path):
    pixels = (TEN_BIT // 4).astype(np.uint8)
    found = read(tmp_path, dicom(pixels))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, pixels)


def test_monochrome1_is_inverted(tmp_path):
    pixels = (TEN_BIT // 4).astype(np.uint8)
    inverted = dicom(pixels, photometric="MONOCHROME1")
    np.testing.assert_array_equal(read(tmp_path, inverted), 255 - pixels)
    believed = Preprocessing(image_size=32, photometric="monochrome2")
    np.testing.assert_array_equal(read(tmp_path, inverted, believed), pixels)


def test_a_self_contradicting_photometric_tag_is_refused(tmp_path):
    wrong = dicom(TEN_BIT, photometric="MONOCHROME1", PresentationLUTShape="IDENTITY")
    with pytest.raises(UnreadableImageError, match=r"contradicts itself.*photometric=monochrome1"):
        read(tmp_path, wrong)
    right = dicom(TEN_BIT, bits=10, photometric="MONOCHROME1", PresentationLUTShape="INVERSE")
    assert read(tmp_path, right)[0, 0] == 65535


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows(tmp_path, function):
    centre, width = 500.0, 200.0
    elements = {"WindowCenter": [centre, 1], "WindowWidth": [width, 2]}
    if function:
        elements["VOILUTFunction"] = function
    found = read(tmp_path, dicom(TEN_BIT, bits=10, **elements)) / 65535
    values = TEN_BIT.astype(np.float64)
    expected = {
        "LINEAR": (values - (centre - 0.5)) / (width - 1) + 0.5,
        "LINEAR_EXACT": (values - centre) / width + 0.5,
        "SIGMOID": 1 / (1 + np.exp(-4 * (values - centre) / width)),
    }[function or "LINEAR"]
    np.testing.assert_allclose(found, np.clip(expected, 0, 1), atol=1e-4)


def test_the_window_may_be_ignored(tmp_path):
    windowed = dicom(TEN_BIT, bits=10, WindowCenter=500, WindowWidth=2)
    np.testing.assert_allclose(read(tmp_path, windowed, NO_WINDOW)[-1, -1], 65535)
    with pytest.raises(UnreadableImageError, match=r"window width is not positive"):
        read(tmp_path, dicom(TEN_BIT, WindowCenter=500, WindowWidth=0))


def test_signed_pixels_with_rescale_and_window(tmp_path):
    stored = np.linspace(-1000, 3000, 48 * 64).round().astype(np.int16).reshape(48, 64)
    scan = dicom(stored, RescaleSlope=0.5, RescaleIntercept=-24, WindowCenter=40, WindowWidth=400)
    values = stored * 0.5 - 24
    expected = np.clip((values - 39.5) / 399 + 0.5, 0, 1)
    np.testing.assert_allclose(read(tmp_path, scan) / 65535, expected, atol=1e-4)
    with pytest.raises(UnreadableImageError, match="rescale slope is zero"):
        read(tmp_path, dicom(stored, RescaleSlope=0, RescaleIntercept=1))


def test_more_bits_than_the_header_says(tmp_path):
    pixels = (TEN_BIT * 4).astype(np.uint16)  # values to 4092 in a file that says 10 bits
    wrong = dicom(pixels, bits=16)
    wrong.BitsStored, wrong.HighBit = 10, 9
    found = read(tmp_path, wrong)
    assert len(np.unique(found)) > 1000  # nothing was clipped to white


def test_negative_values_without_sign_bits(tmp_path):
    stored = np.linspace(-2048, 2047, 48 * 64).round().astype(np.int16).reshape(48, 64)
    right = read(tmp_path, dicom(stored, bits=12))
    wrong = dicom((stored.astype(np.uint16) & 0x0FFF).astype(np.int16), bits=12)
    np.testing.assert_array_equal(read(tmp_path, wrong), right)
    np.testing.assert_allclose(right, (stored + 2048.0) * (65535 / 4095), atol=1)


def test_an_overlay_in_the_unused_bits_is_no_picture(tmp_path):
    drawn = TEN_BIT.copy()
    drawn[10:20] |= 1 << 15
    with_overlay = dicom(drawn, bits=10)
    with_overlay.add_new(0x60000102, "US", 15)
    np.testing.assert_array_equal(
        read(tmp_path, with_overlay), read(tmp_path, dicom(TEN_BIT, bits=10))
    )


def test_padding_does_not_stretch_the_grey_scale(tmp_path):
    pixels = TEN_BIT.copy()
    pixels[:4] = 2000
    found = read(tmp_path, dicom(pixels, bits=12, PixelPaddingValue=2000))
    assert (found[:4] == found[4:].min()).all()


def look_up_table(first, entries, bits):
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item["LUTDescriptor"].VR = "US"
    item.LUTData = np.asarray(entries, dtype="<u2").tobytes()
    item["LUTData"].VR = "OW"
    return [item]


def test_look_up_tables(tmp_path):
    entries = np.arange(1024)[::-1] // 4
    voi = dicom(TEN_BIT, bits=10, VOILUTSequence=look_up_table(0, entries, 8))
    np.testing.assert_allclose(read(tmp_path, voi), entries[TEN_BIT] * 257, atol=1)
    modality = dicom(TEN_BIT, bits=10, ModalityLUTSequence=look_up_table(100, entries[:500], 8))
    expected = entries[np.clip(TEN_BIT.astype(int) - 100, 0, 499)]
    np.testing.assert_allclose(read(tmp_path, modality), expected * 257, atol=1)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_lossless_compressions(tmp_path, syntax, dtype):
    pixels = (TEN_BIT // 4).astype(dtype) if dtype == np.uint8 else TEN_BIT
    plain = read(tmp_path, dicom(pixels))
    np.testing.assert_array_equal(read(tmp_path, dicom(pixels, syntax=syntax)), plain)


def test_big_endian(tmp_path):
    dataset = dicom(TEN_BIT, bits=10)
    dataset.PixelData = TEN_BIT.astype(">u2").tobytes()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    dataset["PixelData"].VR = "OW"
    path = tmp_path / "a.dcm"
    pydicom.dcmwrite(path, dataset, little_endian=False, implicit_vr=False)
    np.testing.assert_allclose(read_pixels(path, SETTING), TEN_BIT * (65535 / 1023), atol=1)


def test_colour_becomes_grey(tmp_path):
    rgb = np.zeros((8, 8, 3), dtype=np.uint8)
    rgb[:4] = [255, 0, 0]
    rgb[4:] = [255, 255, 255]
    found = read(tmp_path, dicom(rgb, photometric="RGB"))
    assert found[0, 0] == 76
    assert found[7, 7] == 255
    deep = read(tmp_path, dicom(rgb.astype(np.uint16) * 257, photometric="RGB"))
    assert deep[7, 7] == 65535


def test_what_cannot_be_read_says_why(tmp_path):
    frames = dicom(TEN_BIT, NumberOfFrames=3)
    frames.PixelData = TEN_BIT.tobytes() * 3
    cut = dicom(TEN_BIT)
    cut.PixelData = cut.PixelData[:100]
    empty = dicom(TEN_BIT)
    del empty.PixelData
    headless = dicom(TEN_BIT)
    del headless.Rows
    huge = dicom(TEN_BIT, Rows=60000, Columns=60000)
    odd = dicom(TEN_BIT, PhotometricInterpretation="CIELAB")
    for dataset, reason in [
        (frames, "holds 3 frames"),
        (cut, "truncated"),
        (empty, "without pixels"),
        (headless, "lacks Rows"),
        (huge, "60000x60000"),
        (odd, "neither monochrome"),
    ]:
        with pytest.raises(UnreadableImageError, match=rf"a\.dcm: .*{reason}"):
            read(tmp_path, dataset)


def test_a_compression_without_decoder_says_what_to_install(tmp_path):
    if get_decoder(JPEGLosslessSV1).is_available:
        pytest.skip("a decoder for JPEG Lossless is installed")
    lossless = dicom(TEN_BIT, syntax=RLELossless)
    lossless.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    with pytest.raises(UnreadableImageError, match=r"JPEG Lossless.*pip install"):
        read(tmp_path, lossless)


def test_files_without_meta_header(tmp_path):
    dataset = dicom(TEN_BIT, bits=10)
    del dataset.file_meta
    path = tmp_path / "a.dcm"
    with path.open("wb") as file:
        pydicom.dcmwrite(
            file, Dataset(dataset), implicit_vr=True, little_endian=True, enforce_file_format=False
        )
    np.testing.assert_allclose(read_pixels(path, SETTING), TEN_BIT * (65535 / 1023), atol=1)


def leaks(text):
    return [secret for secret in SECRETS if secret in text]


def decode_loudly(path, caplog):
    """Everything that decoding says: error with its traceback, warnings and log."""
    caplog.clear()
    said = ""
    with (
        warnings.catch_warnings(record=True) as warned,
        caplog.at_level(logging.DEBUG),
    ):
        warnings.simplefilter("always")
        try:
            read_pixels(path, SETTING)
        except UnreadableImageError as error:
            said = "".join(traceback.format_exception(error))
    return said + caplog.text + "".join(str(warning.message) for warning in warned)


@pytest.mark.filterwarnings("ignore:Invalid value for VR")  # of writing the wrong value
def test_no_patient_element_is_said_when_pixels_are_broken(tmp_path, caplog):
    for change in (
        {"BitsAllocated": 12},
        {"Rows": 7000},
        {"PhotometricInterpretation": SECRETS[0]},
        {"WindowCenter": "5", "WindowWidth": "0"},
    ):
        assert not leaks(decode_loudly(write(tmp_path, dicom(TEN_BIT, **change)), caplog))


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless])
def test_a_frame_that_claims_another_size_is_not_decompressed(tmp_path, syntax):
    dataset = dicom(TEN_BIT, syntax=syntax)
    frame = bytearray(dataset.PixelData)
    if syntax == JPEGLSLossless:
        place = frame.index(b"\xff\xf7") + 5  # height in the frame header
        assert frame[place : place + 2] == (48).to_bytes(2, "big")
    else:
        place = frame.index(b"\xff\x4f\xff\x51") + 14  # two upper bytes are left at zero
        assert frame[place : place + 2] == (48).to_bytes(2, "big")
    frame[place] = 0xBE  # 48,688 rows, which take a decoder a minute
    dataset.PixelData = bytes(frame)
    with pytest.raises(UnreadableImageError, match="of another size than its header says"):
        read(tmp_path, dataset)


@pytest.mark.timeout(120)
def test_mutated_files_give_an_image_or_a_named_error(tmp_path, caplog):
    # Element headers are hit on purpose: a third of the changes fall into the first kilobyte.
    sources = [
        write(tmp_path, dataset, f"{number}.dcm").read_bytes()
        for number, dataset in enumerate(
            [
                dicom(TEN_BIT, bits=10, WindowCenter=500, WindowWidth=300),
                dicom(TEN_BIT, syntax=RLELossless),
                dicom(TEN_BIT, syntax=JPEGLSLossless),
                dicom(TEN_BIT, syntax=JPEG2000Lossless),
            ]
        )
    ]
    rng = np.random.default_rng(0)
    refused = 0
    for number in range(240):
        content = bytearray(sources[number % 4])
        reach = min(len(content), 1000) if number % 3 else len(content)
        if number % 5 == 0:
            content = content[: int(rng.integers(len(content)))]
        for place in rng.integers(0, reach, int(rng.integers(1, 12))):
            if place < len(content):
                content[place] = int(rng.integers(256))
        path = tmp_path / "mutated.dcm"
        path.write_bytes(content)
        said = decode_loudly(path, caplog)
        refused += bool(said)
        assert not leaks(said)
        assert not said or str(path) in said
    assert 40 < refused < 240


def test_real_files(shared_data):
    folder = shared_data / "dicom"
    found = {path.name: read_pixels(path, SETTING) for path in sorted(folder.glob("*.dcm"))}
    assert len(found) == 6
    ten_bit = found["dwv_CR_MONO1_10bit_chest.dcm"]
    height, width = ten_bit.shape
    assert ten_bit[:20].mean() < ten_bit[height // 3 : -height // 3, width // 2].mean()
    stored = pydicom.dcmread(folder / "dwv_CR_MONO1_10bit_chest.dcm").pixel_array
    assert np.corrcoef(ten_bit.ravel(), stored.ravel())[0, 1] < -0.99
    true, fake = found["siim_cxr_jpeg8.dcm"], found["xrv_fake_MONOCHROME1.dcm"]
    np.testing.assert_array_equal(true, 255 - fake)
    mended = Preprocessing(image_size=32, photometric="monochrome2")
    np.testing.assert_array_equal(read_pixels(folder / "xrv_fake_MONOCHROME1.dcm", mended), true)
    scan = found["lungmask_ct_0.dcm"]
    values = pydicom.dcmread(folder / "lungmask_ct_0.dcm").pixel_array.astype(float)
    np.testing.assert_allclose(scan / 65535, (values + 32768) / 65535, atol=2e-5)


def test_wrong_photometric_tag_is_suspected(shared_data):
    from dpmed.data.decoding import decode_image
    from dpmed.data.preprocessing import looks_inverted

    folder = shared_data / "dicom"
    assert looks_inverted(decode_image(folder / "xrv_fake_MONOCHROME1.dcm", SETTING))
    for name in ("siim_cxr_jpeg8.dcm", "dwv_CR_MONO1_10bit_chest.dcm", "nih_udacity_test1.dcm"):
        assert not looks_inverted(decode_image(folder / name, SETTING))


def test_files_of_pydicom_give_an_image_or_a_named_error(caplog):
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    files = sorted(folder.glob("*.dcm"))
    for path in files:
        said = decode_loudly(path, caplog)
        assert not said or "cannot decode" in said
