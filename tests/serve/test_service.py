"""Requests become groups and batches, and every answer is that of a sweep with the same draws."""

import asyncio
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import linksim
from linksim.data import Grouping, load_dataset
from linksim.engine.config import make_config
from linksim.engine.workers import ProcessPool, WorkerLost
from linksim.errors import LinksimError
from linksim.serve.service import Answer, Asked, Limits, Service, Turned
from linksim.serve.work import Job, Served, check, stand_in

IMAGES = load_dataset("cifar10-mini").images


def served(scheme: str = "klt", **more: Any) -> Served:
    settings = {"scheme": scheme, "channel": "awgn,rayleigh", "users": 1, "groups": 1, "metrics": "psnr", "snr": "10"}
    rho = more.pop("rho", None)
    return Served(make_config({**settings, **more}), rho)


class Counting(ThreadPoolExecutor):
    """A thread that keeps the jobs that it was given."""

    def __init__(self) -> None:
        super().__init__(1)
        self.jobs: list[Job] = []

    def submit(self, function: Any, /, *args: Any, **named: Any) -> Future[Any]:
        self.jobs.append(args[1])
        return super().submit(function, *args, **named)


def ask(
    of: Served, requests: list[Asked], pool: Any = None, workers: int = 1, seed: int = 0, **limits: Any
) -> list[Any]:
    """The answers, or what was raised in place of them, to requests that come at once."""

    async def main() -> list[Any]:
        service = Service(of, pool or ThreadPoolExecutor(1), workers, seed, Limits(**limits))
        found = await asyncio.gather(*map(service.answer, requests), return_exceptions=True)
        await service.drain()
        return found

    return asyncio.run(main())


def request(of: Served, image: int = 0, snr: float = 10.0, channel: str = "awgn", **more: Any) -> Asked:
    return Asked(np.asarray(IMAGES[image]), of.config.variants[0], channel, snr, **more)


@pytest.mark.parametrize(
    ("scheme", "users", "settings"),
    [
        ("klt", 1, {}),
        ("kd", 2, {}),
        ("jpeg-ldpc-qam", 1, {}),
        ("kdd", 2, {}),
        ("bpg-capacity", 2, {"antennas": 2}),
    ],
)
@pytest.mark.whole
def test_answers_are_those_of_a_sweep_with_the_same_draws(scheme: str, users: int, settings: dict[str, Any]) -> None:
    groups, gammas = 6, (0.0, 10.0)
    of = served(scheme, users=users, **settings)
    where = Grouping(len(IMAGES), users).indices(np.arange(groups))
    requests = [
        request(of, int(where[group, user]), snr, "rayleigh", seed=3, group=group, user=user)
        for group in range(groups)
        for snr in gammas
        for user in range(users)
    ]
    answers = ask(of, requests, batch=8)
    sweep = linksim.sweep(
        scheme=scheme, channel="rayleigh", snr=list(gammas), users=users, groups=groups, metrics="psnr", seed=3,
        progress=False, **settings,
    )  # fmt: skip
    table = linksim.load_images(sweep.attrs["folder"]).set_index(["stage", "group", "snr_db", "user"]).psnr_db
    for asked, answer in zip(requests, answers, strict=True):
        for stage in answer.stages:
            wanted = table.loc[stage.stage, asked.group, asked.snr_db, asked.user]
            assert stage.values["psnr_db"] == pytest.approx(wanted, abs=1e-4), stage.stage
    sent = [stage.stage for stage in answers[0].stages]
    assert sent == (["first", "ddim"] if scheme == "kdd" else ["first"])


def test_images_come_back_as_they_are_shown() -> None:
    of = served()
    (answer,) = ask(of, [request(of, floats=True)])
    shown = answer.stages[0]
    error = ((shown.pixels - np.asarray(IMAGES[0]) / 255) ** 2).mean()
    assert -10 * np.log10(error) == pytest.approx(shown.values["psnr_db"], abs=1e-3)
    assert shown.png[1:4] == b"PNG"


def test_users_of_one_link_meet_and_whoever_is_alone_is_sent_beside_a_stand_in() -> None:
    of, pool = served("bpg-capacity", users=2), Counting()
    three = ask(of, [request(of, image) for image in range(3)], pool, wait=0.05)
    assert [(answer.group, answer.user, answer.stand_ins) for answer in three] == [(0, 0, 0), (0, 1, 0), (1, 0, 1)]
    sent = {number: images for job in pool.jobs for number, images in zip(job.groups, job.images, strict=True)}
    assert (sent[0] == np.stack([IMAGES[0], IMAGES[1]])).all()
    assert (sent[1] == np.stack([IMAGES[2], stand_in(1, 1, (3, 32, 32))])).all()
    # The same draws once more are the same answer.
    again = ask(of, [request(of, 2, seed=three[2].seed, group=1, user=0)])[0]
    assert again.stages[0].values == three[2].stages[0].values


def test_two_who_ask_for_one_seat_of_the_same_draws_have_a_link_each() -> None:
    of = served("bpg-capacity", users=2)
    first, second = ask(of, [request(of, 0, group=5, user=1), request(of, 1, group=5, user=1)])
    assert (first.user, second.user, first.stand_ins, second.stand_ins) == (1, 1, 1, 1)


def test_links_do_not_meet_across_snrs_and_channels_but_share_a_batch_where_networks_take_each_its_own() -> None:
    of, pool = served("kd", users=2), Counting()
    gammas = (0.0, 0.0, 20.0, 20.0)
    answers = ask(of, [request(of, i, snr) for i, snr in enumerate(gammas)], pool, wait=0.05)
    assert [answer.group for answer in answers] == [0, 0, 1, 1]
    assert [job.snr_db for job in pool.jobs] == [(0.0, 20.0)]
    low, high = (np.mean([a.stages[0].values["psnr_db"] for a in answers[i : i + 2]]) for i in (0, 2))
    assert low < high - 3
    digital, pool = served("jpeg-ldpc-qam"), Counting()
    ask(digital, [request(digital, 0, 0.0), request(digital, 0, 20.0)], pool)
    assert [job.snr_db for job in pool.jobs] == [(0.0,), (20.0,)]


def test_a_batch_is_as_large_as_it_may_be_and_no_larger() -> None:
    of, pool = served(), Counting()
    answers = ask(of, [request(of, i) for i in range(20)], pool, batch=8, wait=0.02)
    assert [len(job.groups) for job in pool.jobs] == [8, 8, 4]
    assert sorted(answer.group for answer in answers) == list(range(20))


def test_what_an_encoder_sent_is_kept_where_it_follows_from_the_image_and_noise_is_new_every_time() -> None:
    of = served("kd", users=2)
    requests = [request(of, image) for image in (0, 1)]

    async def main() -> tuple[list[list[Answer]], Any]:
        service = Service(of, ThreadPoolExecutor(1), 1, 0)
        found = [list(await asyncio.gather(*map(service.answer, requests))) for _ in range(2)]
        faded = [request(of, image, channel="rayleigh") for image in (0, 1)]
        found += [list(await asyncio.gather(*map(service.answer, faded))) for _ in range(2)]
        return found, service.counts

    (first, second, *faded), counts = asyncio.run(main())
    assert [a.symbols_cached for a in first + second] == [False, False, True, True]
    # Over fading its symbols follow from h as well.
    assert not any(a.symbols_cached for answers in faded for a in answers)
    assert first[0].stages[0].values != second[0].stages[0].values
    fresh = ask(of, [request(of, i, group=second[i].group, user=second[i].user) for i in (0, 1)], symbols_bytes=0)
    for kept, anew in zip(second, fresh, strict=True):
        assert kept.stages[0].values["psnr_db"] == pytest.approx(anew.stages[0].values["psnr_db"], abs=1e-4)
    assert counts.registry.get_sample_value("linksim_cached_total", {"cache": "symbols"}) == 2


def test_a_delivered_answer_is_given_again_on_request_alone() -> None:
    of = served()

    async def main(reuse: int) -> list[Answer]:
        service = Service(of, ThreadPoolExecutor(1), 1, 0, Limits(reuse_delivered=reuse))
        return [await service.answer(request(of)) for _ in range(2)]

    first, second = asyncio.run(main(4))
    assert second.delivered_cached
    assert not first.delivered_cached
    assert second.stages == first.stages

    # Who asks for draws of its own has them.
    async def explicit() -> list[Answer]:
        service = Service(of, ThreadPoolExecutor(1), 1, 0, Limits(reuse_delivered=4))
        return [await service.answer(asked) for asked in (request(of), request(of, seed=9, group=4))]

    _, own = asyncio.run(explicit())
    assert (own.seed, own.group, own.delivered_cached) == (9, 4, False)
    first, second = asyncio.run(main(0))
    assert not second.delivered_cached
    assert second.group == first.group + 1


def test_more_requests_than_the_queue_holds_are_turned_away_with_a_time_to_come_back() -> None:
    of = served()
    found = ask(of, [request(of, i) for i in range(6)], queue=4)
    turned = [error for error in found if isinstance(error, Turned)]
    assert len(turned) == 2
    assert all(error.status == 429 and error.retry_after and error.retry_after >= 1 for error in turned)


def test_images_that_a_scheme_does_not_take_are_refused_at_once() -> None:
    of = served()
    odd = Asked(np.zeros((3, 12, 12), np.uint8), of.config.variants[0], "awgn", 10.0)
    found = ask(of, [odd, request(of)], timeout=20)
    assert isinstance(found[0], Turned)
    assert found[0].status == 422
    assert isinstance(found[1], Answer)


class Slow(ThreadPoolExecutor):
    def submit(self, function: Any, /, *args: Any, **named: Any) -> Future[Any]:
        return Future()


def test_a_request_is_given_up_after_its_time() -> None:
    of = served()
    found = ask_with_timeout(of)
    assert isinstance(found, Turned)
    assert found.status == 504


def ask_with_timeout(of: Served) -> Any:
    async def main() -> Any:
        service = Service(of, Slow(1), 1, 0, Limits(timeout=0.1))
        try:
            return await service.answer(request(of))
        except Turned as error:
            return error

    return asyncio.run(main())


class Failing(ThreadPoolExecutor):
    """Fails where an image of a job is black; as often as it is told."""

    def __init__(self, error: Callable[[], Exception], times: int = 10**9) -> None:
        super().__init__(1)
        self.error, self.left = error, times

    def submit(self, function: Any, /, *args: Any, **named: Any) -> Future[Any]:
        job: Job = args[1]
        if self.left and (job.images == 0).all(axis=(2, 3, 4)).any():
            self.left -= 1
            failed: Future[Any] = Future()
            failed.set_exception(self.error())
            return failed
        return super().submit(function, *args, **named)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (lambda: LinksimError("no"), 422),
        (lambda: ValueError("on purpose"), 500),
        (lambda: WorkerLost("exit code -9"), 503),
    ],
)
def test_a_request_that_fails_takes_no_other_with_it(error: Callable[[], Exception], status: int) -> None:
    of = served()
    bad = Asked(np.zeros((3, 32, 32), np.uint8), of.config.variants[0], "awgn", 10.0)
    found = ask(of, [request(of, 0), bad, request(of, 1)], Failing(error))
    assert [type(answer) for answer in found] == [Answer, Turned, Answer]
    assert found[1].status == status
    assert "\n" not in str(found[1])


def test_what_was_at_work_in_a_process_that_ended_goes_once_more() -> None:
    of = served()
    black = Asked(np.zeros((3, 32, 32), np.uint8), of.config.variants[0], "awgn", 10.0)
    (found,) = ask(of, [black], Failing(lambda: WorkerLost("exit code -9"), times=1))
    assert isinstance(found, Answer)


def test_another_process_takes_the_place_of_one_that_is_lost() -> None:
    with ProcessPool(1, first=(int, ("7",)), renew=True) as pool:
        assert pool.ready[0].result(60) == 7
        before = pool.submit(os.getpid).result(60)
        lost = pool.submit(os.kill, before, signal.SIGKILL)
        with pytest.raises(WorkerLost):
            lost.result(60)
        assert pool.submit(os.getpid).result(60) != before


def test_users_who_take_turns_are_links_of_their_own_with_the_rho_of_one() -> None:
    of = served("klt", users=3)
    setting = of.setting(of.config.variants[0], "awgn", (3, 32, 32))
    assert (setting.link.users, str(setting.rho)) == (1, "1/6")
    shared = served("kd", users=2)
    setting = shared.setting(shared.config.variants[0], "awgn", (3, 32, 32))
    assert (setting.link.users, str(setting.rho)) == (2, "1/6")
    taught = served("semoma", users=2)
    setting = taught.setting(taught.config.variants[0], "awgn", (3, 32, 32))
    assert (setting.link.users, str(setting.rho)) == (2, "1/3")


@pytest.mark.parametrize(
    ("scheme", "more", "text"),
    [
        ("jpeg-ldpc-qam:mcs=envelope", {}, "no scheme: give one mcs"),
        ("klt", {"metrics": "fid"}, "set of images"),
        ("kd", {"users": 5}, "weights"),
    ],
)
def test_what_cannot_be_served_is_refused(scheme: str, more: dict[str, Any], text: str) -> None:
    with pytest.raises(LinksimError, match=text):
        check(served(scheme, **more), (3, 32, 32))
