"""Early stopping from the curves of trials."""

from hypothesis import given
from hypothesis import strategies as st

from mtl_ray.tuning.record import Reported
from mtl_ray.tuning.scheduler import asha, median


def curve(*values, every=1.0):
    return [Reported(epoch=(i + 1) * every, value=value) for i, value in enumerate(values)]


def test_asha_keeps_the_best_third_at_each_rung_and_looks_at_rungs_only():
    others = [
        curve(0.1, 0.1, 0.1),
        curve(0.2, 0.2, 0.2),
        curve(0.3, 0.3, 0.3),
        curve(0.4, 0.4, 0.4),
        curve(0.5, 0.5, 0.5),
    ]
    assert not asha(curve(0.45), others, grace=1, reduction=3)
    assert asha(curve(0.35), others, grace=1, reduction=3)
    assert not asha(curve(0.45, 0.0), others, grace=1, reduction=3)  # the next rung is at epoch 3
    assert asha(curve(0.45, 0.0, 0.0), others, grace=1, reduction=3)
    assert not asha(curve(0.0), others, grace=2, reduction=3)


def test_asha_compares_at_the_same_epoch_whatever_came_later_and_takes_the_first_report_after_a_rung():  # noqa: E501
    other = [curve(0.1, 0.9, every=0.6)]  # at 0.6 and 1.2: the value of rung 1 is 0.9
    assert asha(curve(0.5), other, grace=1, reduction=2)
    # it never reached the rung
    assert not asha(curve(0.5), [curve(0.1, every=0.6)], grace=1, reduction=2)
    assert not asha(curve(0.5), [], grace=1, reduction=2)


@given(
    values=st.lists(st.floats(0, 1), min_size=1, max_size=30, unique=True),
    reduction=st.floats(1.5, 4),
)
def test_asha_stops_neither_the_best_nor_all_and_of_many_about_what_it_should(values, reduction):
    came, stay = [], []
    for value in values:
        if not asha(curve(value), came, grace=1, reduction=reduction):
            stay.append(value)
        came.append(curve(value))
    assert max(values) in stay
    worst = [
        value
        for value in stay
        if sum(other > value for other in values[: values.index(value)])
        >= max(1, (values.index(value) + 1) / reduction)
    ]
    assert not worst


def test_median_stops_what_was_never_as_good_as_the_median_of_the_others_means():
    others = [curve(0.2, 0.4), curve(0.3, 0.5), curve(0.4, 0.6), curve(0.5, 0.7)]
    assert median(curve(0.1, 0.44), others, grace=1)
    assert not median(curve(0.1, 0.46), others, grace=1)
    assert not median(curve(0.1, 0.44), others[:3], grace=1)
    assert not median(curve(0.1, 0.44), others, grace=3)
