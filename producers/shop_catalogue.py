"""What the synthetic shop can sell: all kinds, their brands, sellers and complements. Data only.

Reads, writes  nothing
Never          names a company, a person or a trademark on purpose: brands, authors and sellers are invented
"""

from __future__ import annotations

from producers.shop_kinds import Complement, Kind
from producers.shop_tables_home import HOME
from producers.shop_tables_leisure import LEISURE
from producers.shop_tables_life import LIFE
from producers.shop_tables_tech import TECH

#: Brands by department, budget first and premium last; a brand's place moves its prices.
BRANDS: dict[str, tuple[str, ...]] = {
    "Electronics": ("Pyllon", "Novekko", "Tessilar", "Veltrane", "Osmiq", "Quorvane", "Halvorsund"),
    "Office": ("Plennick", "Kadrow", "Ostermark", "Inkerwell", "Velmont & Pryce", "Sorrelby"),
    "Musical Instruments": ("Fennimore", "Taverly", "Cadrano", "Lindqvale", "Oberlohn"),
    "Automotive": ("Gridderly", "Trakkona", "Roadwyck", "Varnholt", "Stauffric"),
    "Home & Kitchen": ("Brimwick", "Kuvanta", "Maison Ordell", "Stellbruck", "Ferrovalli", "Aldengard"),
    "Furniture & Lighting": ("Nordhagen Home", "Fabel & Birk", "Oakmere Works", "Lumholt", "Casa Terrane"),
    "Garden": ("Greenlow", "Thistlebarn", "Rasenquist", "Emberholt", "Wetherfold"),
    "Tools & DIY": ("Hardigan", "Boltwerk", "Torvik Tools", "Krammstein", "Drakkelund"),
    "Sports & Outdoors": ("Trailmoss", "Kestrelow", "Summarck", "Fjellvind", "Aerotarn", "Windhover Supply"),
    "Clothing": (
        "Plain & Harrow",
        "Lowfield",
        "Marlowe Stitch",
        "Ondine & Oak",
        "Skjaldur",
        "Atelier Voss-Lane",
    ),
    "Beauty & Care": ("Soapwick", "Dermelle", "Laneva Botanics", "Hyssop & Rue", "Clairvigne"),
    "Baby": ("Tumbletot", "Mimbli", "Lullowe", "Petit Nordan", "Cradlemark"),
    "Grocery": ("Millstone Pantry", "Terra Ondina", "Casa Belforte", "Hollow Hill", "Fratelli Ombrosa"),
    "Pets": ("Wagtide", "Pawsley", "Murrly", "Brackwater", "Feldhund"),
    "Toys & Games": ("Klickadoo", "Tinkerfox", "Brettwald", "Oddlings", "Holzwicht"),
    "Books": ("Larkhouse Press", "Meridian Row", "Quince & Daughter", "Tidewrack Books", "Inkfall"),
}

#: Names of product lines, where a kind has none of its own.
LINES: tuple[str, ...] = (
    *("Alder", "Amberley", "Arc", "Basalt", "Beacon", "Birchwood", "Brook", "Calder", "Canopy", "Cinder"),
    *("Clover", "Copse", "Crest", "Delta", "Drift", "Dune", "Ember", "Everly", "Fathom", "Fern"),
    *("Flint", "Foxglove", "Gable", "Garnet", "Glade", "Granite", "Grove", "Haven", "Hazel", "Heath"),
    *("Heron", "Horizon", "Inlet", "Ivory", "Juniper", "Kestrel", "Lagoon", "Lantern", "Larch", "Loom"),
    *("Marlow", "Meadow", "Mesa", "Mistral", "Moorland", "Nimbus", "Noble", "Northway", "Nova", "Oasis"),
    *("Onyx", "Osprey", "Pebble", "Pine", "Plover", "Prairie", "Quarry", "Quartz", "Ravine", "Reed"),
    *("Ridge", "Rowan", "Saffron", "Sequoia", "Shoal", "Slate", "Solstice", "Sorrel", "Spindle", "Summit"),
    *("Tarn", "Thicket", "Thistle", "Tidal", "Timber", "Umber", "Vale", "Verve", "Wharf", "Willow"),
)

#: Marketplace sellers; the first writes the shop's own offers.
SELLERS: tuple[str, ...] = (
    *("simshop", "harbour-goods", "kontor-24", "maple-and-main", "redbrick-outlet", "the-parcel-barn"),
    *(
        "lowland-traders",
        "blue-door-deals",
        "nordpol-versand",
        "attic-finds",
        "quick-crate",
        "westgate-supply",
    ),
)
OWN_SELLER = SELLERS[0]

KINDS: tuple[Kind, ...] = (*TECH, *HOME, *LIFE, *LEISURE)
BY_NOUN: dict[str, Kind] = {kind.noun: kind for kind in KINDS}

COMPLEMENTS: tuple[Complement, ...] = (
    Complement("inkjet printer", "ink cartridge", fits=True),
    Complement("smartphone", "phone case", fits=True),
    Complement("vacuum cleaner", "vacuum bags", fits=True),
    Complement("cordless drill", "battery pack", fits=True),
    Complement("trekking tent", "tent footprint", fits=True),
    Complement("electric toothbrush", "brush heads", fits=True),
    Complement("baby bottle", "feeding teats", fits=True),
    Complement("aquarium", "filter cartridges", fits=True),
    Complement("mirrorless camera", "memory card", fits=False),
    Complement("fountain pen", "bottled ink", fits=False),
    Complement("acoustic guitar", "guitar strings", fits=False),
    Complement("espresso machine", "coffee beans", fits=False),
    Complement("charcoal grill", "charcoal", fits=False),
    Complement("orbital sander", "sanding discs", fits=False),
    Complement("safety razor", "double-edge blades", fits=False),
    Complement("litter box", "cat litter", fits=False),
    Complement("floor lamp", "LED bulb", fits=False),
    Complement("hiking backpack", "wool socks", fits=False),
    Complement("stroller", "night light", fits=False),
)

#: Kinds that are only sold with a host, because their text names it.
FITTING_NOUNS: frozenset[str] = frozenset(pair.accessory for pair in COMPLEMENTS if pair.fits)


def brands_of(kind: Kind) -> tuple[str, ...]:
    """The brands that make this kind, budget first."""
    return tuple(kind.brands.split("|")) if kind.brands else BRANDS[kind.department]
