from contextlib import ExitStack

import numpy as np

from adversary import asking
from adversary.campaign import Identities, Model
from adversary.serving import Place
from tests.adversary.tiny import Tiny, serving


def test_a_model_is_asked_as_the_campaign_describes_it():
    """NHWC bytes of which 2 * 100 is the mean and 10 the standard deviation, logits in the second output."""
    tiny = Tiny(
        lambda x: x.reshape(len(x), -1)[:, :3], datatype="FP64", shape=(-1, 2, 5, 3), outputs=("features", "scores")
    )
    model = Model(name="tiny", output="scores", high=200.0, mean=(100.0,) * 3, std=(10.0,), layout="nchw_to_nhwc")
    x = np.random.default_rng(0).random((1, 3, 2, 5), np.float32)
    with ExitStack() as stack:
        stack.enter_context(serving(tiny))
        place = Place(tiny.address, None, "secret", (("a", "b"),), ("one", "two"))
        site = stack.enter_context(asking.opened(place, model, Identities(header="Who")))
        with site.oracle("kind", 2, 10) as oracle:
            oracle.query(x)
            oracle.use(1)
            oracle.query(x)
    assert np.allclose(tiny.inputs[0], np.moveaxis(x, 1, -1) * 20.0 - 10.0, atol=1e-6)
    assert tiny.requests[0].outputs[0].name == "scores"
    assert {sent["who"] for sent in tiny.metadata} == {"one", "two"}
    assert {sent["a"] for sent in tiny.metadata} == {"b"}
