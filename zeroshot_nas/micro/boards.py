"""Microcontroller boards by name, and what of their memory a network may take. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from zeroshot_nas.errors import UnknownNameError

KIB = 1024

RAM_HEADROOM = 0.1
"""Share of the RAM that is left to stack, drivers and the application, at least `LEAST_RAM_HEADROOM`."""

LEAST_RAM_HEADROOM = 16 * KIB

FLASH_HEADROOM = 160 * KIB
"""Flash that is left to the interpreter with its kernels, the C library, the application, and the file's graph."""


@dataclass(frozen=True)
class Board:
    """A board.

    Attributes:
        name: What ``--board`` calls it.
        ram: Bytes of RAM in one piece, since the arena is one.
        flash: Bytes of flash that code and weights share.
        core: Processor.
        source: Where the numbers are from.
    """

    name: str
    ram: int
    flash: int
    core: str
    source: str

    def limits(self) -> dict[str, float]:
        """Limits that a network for the board keeps to, as `Budget` takes them.

        Example:
            >>> get_board("stm32f746").limits()
            {'peak_memory': 294912, 'weights': 884736}
        """
        headroom = max(int(self.ram * RAM_HEADROOM), LEAST_RAM_HEADROOM)
        return {"peak_memory": self.ram - headroom, "weights": self.flash - FLASH_HEADROOM}


_BOARDS = {
    name: Board(name, ram * KIB, flash * KIB, core, source)
    for name, ram, flash, core, source in (
        ("apollo3", 384, 1024, "Cortex-M4F, 48 MHz", "Ambiq Apollo3 Blue data sheet (SparkFun Edge)"),
        ("max78000", 128, 512, "Cortex-M4F, 100 MHz", "Analog Devices MAX78000 data sheet; its accelerator aside"),
        ("nrf52840", 256, 1024, "Cortex-M4F, 64 MHz", "Nordic nRF52840 product specification (Nano 33 BLE)"),
        ("nrf5340", 512, 1024, "Cortex-M33, 128 MHz", "Nordic nRF5340 product specification, application core"),
        ("rp2040", 256, 2048, "Cortex-M0+, 133 MHz", "RP2040 data sheet, striped SRAM; flash of the Pico"),
        ("rp2350", 512, 4096, "Cortex-M33, 150 MHz", "RP2350 data sheet, striped SRAM; flash of the Pico 2"),
        ("samd51", 192, 512, "Cortex-M4F, 120 MHz", "Microchip SAM D5x/E5x data sheet, ATSAMD51J19"),
        ("stm32f412", 256, 1024, "Cortex-M4F, 100 MHz", "ST STM32F412 data sheet"),
        ("stm32f746", 320, 1024, "Cortex-M7, 216 MHz", "ST STM32F746 data sheet (DISCO-F746NG)"),
        ("stm32f767", 512, 2048, "Cortex-M7, 216 MHz", "ST STM32F767 data sheet"),
        ("stm32h743", 512, 2048, "Cortex-M7, 480 MHz", "ST STM32H743 data sheet, AXI SRAM"),
        ("stm32l4r5", 640, 2048, "Cortex-M4F, 120 MHz", "ST STM32L4R5 data sheet (MLPerf Tiny's reference board)"),
        ("teensy41", 512, 7936, "Cortex-M7, 600 MHz", "PJRC Teensy 4.1, one of two banks of RAM"),
    )
}


def get_board(name: str) -> Board:
    """A board by its name.

    Raises:
        UnknownNameError: There is none of that name.
    """
    try:
        return _BOARDS[name.lower()]
    except KeyError:
        raise UnknownNameError("board", name, _BOARDS) from None


def list_boards() -> list[str]:
    """Names of the boards that `get_board` and ``--board`` know.

    Example:
        >>> "stm32f746" in list_boards()
        True
    """
    return list(_BOARDS)
