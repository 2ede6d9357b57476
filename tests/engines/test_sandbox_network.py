"""The address under which jobs reach their platform, when two platforms have come by the same."""

from __future__ import annotations

import os
import socket

import pytest

from neuro.engines.sandbox import nat, network

SUBNET = "10.213.0.0"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives the machine addresses")
def test_an_address_goes_with_its_last_user() -> None:
    # Nobody draws this id: a real one has eight digits.
    installation = "fffffffff"
    address = network.host_address(installation, SUBNET)
    network.add_host_address(address)
    with socket.create_server((address, 0)):
        nat.tear_down(installation, SUBNET)

        assert network.is_listened_on(address)
        socket.create_server((address, 0)).close()

    nat.tear_down(installation, SUBNET)

    with pytest.raises(OSError, match="assign"):
        socket.create_server((address, 0)).close()
