"""Which client of the federation a process answers for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from fedft.client.site.config import SiteConfig, load_site
from fedft.client.site.folders import ClientFolders
from fedft.config import RunConfig
from fedft.errors import Code, FedftError

NO_SERVER = "flower"


@dataclass(frozen=True)
class ClientIdentity:
    """Part ``partition`` of ``partitions`` of the training data; a site's own data is part 0 of 1.

    ``server`` is the identity of the server whose signature the instruction carries. Flower's SuperNode
    verifies none, so that only a policy that allows `NO_SERVER`, or any, lets a site take part there.
    """

    partition: int
    partitions: int
    site: SiteConfig | None = None
    folders: ClientFolders = field(default_factory=ClientFolders.of_user)
    server: str = NO_SERVER

    @classmethod
    def of(cls, node_config: Mapping[str, object], folders: ClientFolders | None = None) -> ClientIdentity:
        """Read Flower's node configuration: ``site``, the path of a site's configuration, or a partition.

        The daemon adds ``server``, whose signature it has verified.

        Args:
            node_config: of the node that answers.
            folders: of clients that are a partition; None for the user's. A site's configuration has its own.

        Raises:
            FedftError: FEDFT-7003 when it says neither, FEDFT-7050 when the site's file has mistakes.

        """
        site = node_config.get("site")
        if isinstance(site, str):
            server = node_config.get("server")
            return replace(_of_site(Path(site)), server=server if isinstance(server, str) else NO_SERVER)
        partition, partitions = node_config.get("partition-id"), node_config.get("num-partitions")
        if (
            not isinstance(partition, int)
            or not isinstance(partitions, int)
            or not 0 <= partition < partitions
        ):
            raise FedftError(
                Code.PARTITION_NOT_SET,
                f"node configuration partition-id={partition!r}, num-partitions={partitions!r}",
                hint='start the SuperNode with --node-config "partition-id=0 num-partitions=2"',
            )
        return cls(partition, partitions, folders=folders or ClientFolders.of_user())

    @property
    def client(self) -> str:
        """The client's key: stable over restarts, whatever node id Flower hands out."""
        return simulated_name(self.partition) if self.site is None else self.site.name

    def localise(self, config: RunConfig) -> RunConfig:
        """Return the run's configuration as it holds here: a site has its own data and model path."""
        return config if self.site is None else self.site.localise(config)


def simulated_name(partition: int) -> str:
    """Return what the simulated client with a part of the data is called."""
    return f"client-{partition:03d}"


def authenticated_server(site: SiteConfig) -> str:
    """Return the name of the server whose signature a site's daemon verifies: the host of its address."""
    return site.server.address.rpartition(":")[0]


@lru_cache(maxsize=16)
def _of_site(path: Path) -> ClientIdentity:
    # Read once: what a site agreed to when its worker started holds until the worker is restarted.
    site = load_site(path)
    part = (0, 1) if site.data.partition < 0 else (site.data.partition, site.data.partitions)
    return ClientIdentity(*part, site, ClientFolders(site.path(site.state), site.path(site.cache)))
