"""Names from outside in the Markdown of the submitted notebook."""

from __future__ import annotations

from report.submission.cells import _about_images
from report.submission.code import Images


def test_the_name_of_the_images_is_no_markup() -> None:
    name = "pets <img src=x onerror=alert(1)>"
    text = _about_images(Images(name, 60, 20, has_training=True, is_handed_in=True, are_test=False))
    assert text.startswith(r"pets \<img src=x onerror=alert(1)\>: trained on 60")
