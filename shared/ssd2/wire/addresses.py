"""Addresses of machines, as both sides read them."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """True if what is sent to a host stays on this machine.

    Args:
        host: a name or an address, an IPv6 address with or without its brackets.
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
