import base64
import io

import numpy as np
import pytest
from PIL import Image

from adversary import report_page


def shown(uri):
    kind, _, content = uri.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


@pytest.mark.parametrize("shape", [(28, 28), (1, 28, 28), (28, 28, 1)])
def test_a_grey_picture_is_what_was_sent(shape):
    image = np.linspace(0, 1, 28 * 28).reshape(shape)
    assert np.array_equal(shown(report_page.png(image)), np.rint(image.reshape(28, 28) * 255))


def test_a_coloured_picture_is_what_was_sent():
    image = np.linspace(0, 1, 3 * 8 * 9).reshape(3, 8, 9)
    wanted = np.rint(np.moveaxis(image, 0, -1) * 255)
    assert np.array_equal(shown(report_page.png(image)), wanted)
    assert np.array_equal(shown(report_page.png(np.moveaxis(image, 0, -1))), wanted)


def test_a_table_escapes_its_cells_and_puts_brackets_below():
    html = report_page.table(("a<b", "c"), [("family <x>",), ("one (1 < 2)", "-")])
    assert "<th>a&lt;b</th>" in html
    assert '<tr class="group"><td colspan="2">family &lt;x&gt;</td></tr>' in html
    assert "<td>one<small>1 &lt; 2</small></td>" in html
