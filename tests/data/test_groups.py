import numpy as np
import pytest

from linksim.data import Grouping
from linksim.errors import LinksimError


def test_the_set_is_cut_into_contiguous_parts_and_zipped() -> None:
    grouping = Grouping(10_000, 2)
    assert grouping.n_groups == 5000
    assert grouping.left_out == 0
    assert grouping.indices(slice(0, 3)).tolist() == [[0, 5000], [1, 5001], [2, 5002]]


@pytest.mark.parametrize(("n_images", "users"), [(512, 1), (512, 3), (11, 3), (8, 8), (17, 8)])
def test_every_image_is_sent_once_but_those_left_out(n_images: int, users: int) -> None:
    grouping = Grouping(n_images, users)
    sent = grouping.indices(slice(None))
    assert sent.shape == (grouping.n_groups, users)
    assert sorted(sent.ravel()) == list(range(n_images - grouping.left_out))
    assert grouping.left_out < users


def test_groups_come_in_the_order_they_are_asked_for() -> None:
    grouping = Grouping(11, 3)
    assert grouping.indices(np.array([2, 0])).tolist() == [[2, 5, 8], [0, 3, 6]]
    assert grouping.indices([1]).tolist() == [[1, 4, 7]]


def test_a_group_past_the_end_is_an_error() -> None:
    with pytest.raises(IndexError):
        Grouping(11, 3).indices([3])


@pytest.mark.parametrize("users", [0, -1, 9])
def test_users_outside_one_to_eight_are_refused(users: int) -> None:
    with pytest.raises(LinksimError, match="1 to 8"):
        Grouping(100, users)


def test_fewer_images_than_users_are_refused() -> None:
    with pytest.raises(LinksimError, match="3 images cannot serve 4 users"):
        Grouping(3, 4)
