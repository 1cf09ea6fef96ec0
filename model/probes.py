"""Texts that a precision or an engine has to encode as the reference does."""

from __future__ import annotations

#: Texts like those of a catalogue, from one word to longer than most models read.
PROBE_TEXTS = (
    "lamp",
    "USB-C to HDMI adapter, 4K 60 Hz, space grey",
    "Trail running shoe, women's, size 39. Nordfell. Shoes > Running. colour: teal; weight: 248 g",
    "Ibuprofen 400 mg film-coated tablets, 50 pieces (PZN 10019621)",
    "Édition reliée du roman, 412 pages, traduit de l'islandais",
    "无线蓝牙耳机 降噪 入耳式 黑色",
    "Cordless drill 18 V with two batteries, 13 mm keyless chuck, 62 Nm, brushless motor and case. "
    "The two-speed gearbox drives long screws into hardwood and drills steel up to 13 mm. "
    "An LED lights the work, and the belt hook can be fitted on either side.",
    " ".join(f"part {number}: bracket, washer and hex bolt M{number % 12 + 3}" for number in range(40)),
)
