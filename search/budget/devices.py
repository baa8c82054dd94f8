"""Memory of microcontrollers that is available to a network.

A profile "RAM/flash", such as "64KB/64KB", is the memory for the network itself (KB are 1,024 bytes). A chip is listed with
all its memory, of which RESERVED is left to the program: interpreter, kernels, stack, drivers. That share is an estimate of
this project, not measured on the chips; use a profile where the real value is known.
"""

from __future__ import annotations

import re

from search.errors import nearest

KB = 1024
RESERVED = (16 * KB, 64 * KB)  # RAM and flash of the program around the network

# On-chip SRAM and flash in KB, from the makers' data sheets.
CHIPS: dict[str, tuple[int, int]] = {
    "nrf52840": (256, 1024),  # Arduino Nano 33 BLE Sense
    "rp2040": (264, 2048),  # Raspberry Pi Pico, whose flash is a chip of its own
    "stm32f103": (20, 128),
    "stm32f411": (128, 512),
    "stm32f446": (128, 512),
    "stm32f746": (320, 1024),
    "stm32h743": (1024, 2048),
    "stm32l476": (128, 1024),
    "esp32": (520, 4096),  # flash of the usual module
    "esp32s3": (512, 8192),
}

_UNITS = {"B": 1, "KB": KB, "MB": KB * KB}


def memory_of(device: str) -> tuple[int, int]:
    """(RAM, flash) in bytes that a network may take on a chip or under a profile.

    Raises:
        ValueError: it is neither.
    """
    if match := re.fullmatch(r"(\d{1,9}) ?(B|KB|MB)/(\d{1,9}) ?(B|KB|MB)", device.strip()):
        ram, ram_unit, flash, flash_unit = match.groups()
        return int(ram) * _UNITS[ram_unit], int(flash) * _UNITS[flash_unit]
    if device not in CHIPS:
        raise ValueError(
            f'{device!r} is no known chip, {nearest(device, CHIPS)}; or give RAM and flash, such as "64KB/64KB"'
        )
    ram_kb, flash_kb = CHIPS[device]
    return ram_kb * KB - RESERVED[0], flash_kb * KB - RESERVED[1]


def check_device(device: str) -> str:
    """Return the name of a device or profile unchanged.

    Raises:
        ValueError: it is neither a chip nor a profile.
    """
    memory_of(device)
    return device
