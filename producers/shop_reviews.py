"""What reviewers of the synthetic shop say: opinions about aspects, as good or bad as the rating.

Reads, writes  nothing
Never          draws from a global generator: the caller hands in its own
"""

# ruff: noqa: E501 - a table reads best with one entry a line
from __future__ import annotations

from collections.abc import Sequence
from random import Random

#: aspect -> (what pleased, what did not), `|` between sentences.
ASPECTS: dict[str, tuple[str, str]] = {
    "appetite": (
        "The bowl is licked clean every time.|Our fussy one eats it without a fuss.",
        "Ours sniffs at it and walks away.|Left untouched two days in a row.",
    ),
    "assembly": (
        "Put together in twenty minutes, alone.|Every screw was there and every hole in the right place.",
        "Two holes did not line up and I had to drill.|Assembly took an evening and a quarrel.|One bag of screws was missing.",
    ),
    "battery": (
        "The battery outlasts my week.|Still at half charge after three days.|Battery life is as promised, which is rare.",
        "The battery is flat by lunchtime.|After four months it holds half its charge.|Battery life is nowhere near the claim.",
    ),
    "build": (
        "It feels solid, nothing rattles.|Well made down to the hinges.|You can tell where the money went.",
        "The plastic creaks when you pick it up.|A seam came apart in the second week.|It feels cheaper than it is.",
    ),
    "camera": (
        "Photos at dusk are surprisingly clean.|The camera is ready before the moment is gone.",
        "Indoor photos are mushy.|The camera app hesitates for a second, and that is the second you wanted.",
    ),
    "charging_speed": (
        "Full again before I have finished breakfast.|Charges faster than anything I had before.",
        "Charging takes the whole night.|It never reaches the charging power on the label.",
    ),
    "cleaning": (
        "Rinse, wipe, done.|Cleaning takes a minute.|Everything comes apart for washing.",
        "There is a groove you can never get clean.|Cleaning it takes longer than using it.",
    ),
    "cleaning_power": (
        "Cleans noticeably better than the old one.|A visible difference after three days.",
        "I see no difference to the cheap one.|Leaves a film behind.",
    ),
    "colour": (
        "The colour is exactly as pictured.|An even nicer colour in daylight.",
        "The colour is two shades darker than in the picture.|The colour rubbed off on my hands.",
    ),
    "comfort": (
        "I forget that I am using it, which says it all.|Comfortable for hours.|No pressure points even after a long day.",
        "It starts to hurt after an hour.|Too hard for me, even after two weeks.|Presses in exactly the wrong place.",
    ),
    "comfort_pet": (
        "Our dog does not even notice wearing it.|No rubbing behind the legs.",
        "It rubs behind the front legs.|Ours freezes as soon as it is on.",
    ),
    "connection": (
        "Connects within a second, every time.|Not one dropout so far.",
        "Drops the connection twice a day.|Pairing took six attempts.",
    ),
    "delivery": (
        "Arrived a day early and well packed.|Delivered quickly, box undamaged.",
        "Came a week late in a crushed box.|The parcel was left in the rain.",
    ),
    "digestion": (
        "No more stomach trouble since we changed.|Gentle on a sensitive stomach.",
        "Upset stomach after two days.|We had to stop because of the itching.",
    ),
    "display": (
        "The picture is crisp and even to the corners.|Colours are right out of the box.",
        "One corner glows visibly in the dark.|The picture is dull and no setting helps.",
    ),
    "durability": (
        "Two years of daily use and no sign of wear.|Still like new after a hard season.",
        "Broke after three weeks of normal use.|The surface wore through in a month.|Did not survive the second wash.",
    ),
    "dust": (
        "Hardly any dust when pouring.|No grey film on the shelf any more.",
        "A cloud of dust at every pour.|Everything near it turns grey.",
    ),
    "fabric": (
        "The fabric is soft and heavy in a good way.|Lovely material, no pilling so far.",
        "Pilling after the second wear.|The fabric is thin and scratchy.|A thread came loose at once.",
    ),
    "fit": (
        "Fits perfectly, as if it had been measured.|True to size.|Clicks in as it should.",
        "Runs a full size small.|Does not fit although it is listed as compatible.|Too wide at the back, I sent it back.",
    ),
    "flow": (
        "Flows well, even from a dry nib.|Never skips.",
        "Feathers on everything but the best paper.|Much too dry, it skips.",
    ),
    "freshness": (
        "Packed only days before it came.|Smells fresh when you open it.",
        "The use-by date was next month.|Stale when it arrived.",
    ),
    "fun": (
        "The children asked for it again before breakfast.|Laughed until it was late.|We have played with it every evening since.",
        "Boring after the second time.|The children lost interest in an hour.",
    ),
    "grip": (
        "Sits in the hand as if made for it.|Holds even when wet.",
        "Slippery as soon as hands are damp.|The handle is made for much bigger hands.",
    ),
    "handling": (
        "Steers with one hand around every corner.|So light to push that I forget it.",
        "Pulls to the left.|Every curb is a fight.",
    ),
    "heat": (
        "Gets hot evenly and stays there.|Holds its temperature for hours.",
        "Hot in the middle, cold at the edge.|It warped on the first high heat.",
    ),
    "information": (
        "Addresses were correct, down to the opening hours.|Found places no forum mentions.",
        "Half of the places have closed.|The maps are too small to use.",
    ),
    "instructions": (
        "Clear instructions, no guessing.|Every step is explained and illustrated.",
        "The instructions skip a step.|A quantity is missing in the second chapter, so to speak: guess yourself.",
    ),
    "kinks": (
        "Does not kink, not even around the corner of the house.|Rolls out without a fight.",
        "Kinks at every bend.|Twists itself into a knot.",
    ),
    "leaks": (
        "Not a drop has leaked.|Stays tight upside down in a bag.",
        "Leaks at the seal.|A puddle in the bag on the first day.",
    ),
    "light": (
        "A warm, calm light.|Bright enough to read and soft enough to sit under.",
        "The light is cold and flickers on camera.|Much darker than stated.",
    ),
    "looks": (
        "Guests ask where it is from.|Even prettier than in the photos.|A quiet, beautiful thing.",
        "Looks cheaper than in the photos.|The finish has blotches.",
    ),
    "luck": (
        "Decisions matter more than dice.|Well balanced between luck and thought.",
        "Whoever draws well wins, nothing else counts.|Too much luck for its length.",
    ),
    "noise": (
        "So quiet that I checked whether it was on.|Hardly louder than the fridge.",
        "Far too loud for a flat.|A high whine that goes through the wall.|You cannot talk next to it.",
    ),
    "noise_cancelling": (
        "The noise cancelling makes the train disappear.|Engine drone is simply gone.",
        "The noise cancelling hisses in quiet rooms.|Voices come through as if nothing was on.",
    ),
    "pace": (
        "I could not put it down after the third chapter.|The tension never drops.",
        "A hundred pages too long.|Nothing happens until the middle.",
    ),
    "packaging": (
        "Sensibly packed, no plastic.|The closure really closes.",
        "The pack cannot be closed again.|More packaging than content.",
    ),
    "paper": (
        "My fountain pen does not bleed through.|The paper is smooth without being slick.",
        "Ink shows through on every page.|The paper is thinner than stated.",
    ),
    "picture": (
        "Tack sharp, even in poor light.|Wonderful colours straight from the device.",
        "Noisy pictures as soon as the sun is gone.|Number plates are unreadable at night.",
    ),
    "picture_motif": (
        "A motif you like to look at for a week.|Every corner of the picture has something in it.",
        "A third of the picture is plain sky.|Printed so dark that details vanish.",
    ),
    "pictures": (
        "The pictures alone are worth it.|Wonderful illustrations on every page.",
        "Too few pictures.|The print is pale.",
    ),
    "power": (
        "Power to spare.|Goes through oak without slowing down.",
        "Stalls as soon as it gets hard.|Underpowered for its class.",
    ),
    "print": (
        "Text is razor sharp and black is black.|Photos come out without stripes.",
        "Stripes after two weeks.|Colours are pale and slightly green.",
    ),
    "range": (
        "Reaches the garden through two walls.|Full signal in the attic now.",
        "Loses contact at ten metres.|The far room is as dead as before.",
    ),
    "recipes": (
        "Every recipe I tried worked.|Ingredients you can buy in a village shop.",
        "You need three shops for every dish.|Two recipes simply do not work.",
    ),
    "reliability": (
        "Has not failed once in a year.|Works on the coldest morning.",
        "Failed when it mattered.|Dead after the first winter.",
    ),
    "rules": (
        "Rules explained in five minutes.|The rulebook answers every question.",
        "The rules contradict themselves.|An hour of reading before the first move.",
    ),
    "running_costs": (
        "Cheap to run.|One lasts far longer than I expected.",
        "Empty after forty pages.|Refills cost more than the thing itself.",
    ),
    "setup": (
        "Set up in five minutes, without the manual.|It explains itself.",
        "Setup took an evening and a call.|The manual is a leaflet of symbols.",
    ),
    "sharpness": (
        "Goes through tomatoes by its own weight.|Still sharp after months.",
        "Blunt within two weeks.|Squashes more than it cuts.",
    ),
    "shave": (
        "Close and mild, no redness.|The best shave since I gave up cartridges.",
        "Cut myself three times.|Skips over the chin.",
    ),
    "size": (
        "Just the right size.|Bigger inside than it looks.",
        "Smaller than I imagined.|Too bulky for where I wanted it.",
    ),
    "skin": (
        "My skin has calmed down within a week.|No irritation at all.",
        "Red spots after two days.|Dries my skin out.",
    ),
    "smell": (
        "Smells of nothing, as it should.|A lovely discreet scent.",
        "A chemical smell that does not go away.|The scent is overwhelming.",
    ),
    "softness": (
        "So soft that nobody puts it down.|Soft even after washing.",
        "Scratchy after the first wash.|Stuffed so hard that you cannot hug it.",
    ),
    "software": (
        "The app does what it should and nothing more.|Updates have made it better.",
        "The app wants an account for everything.|The last update broke what worked.",
    ),
    "sound": (
        "Warm, clear sound with real bass.|I hear things in old records I never heard.|Full sound without booming.",
        "Tinny, with no bottom at all.|It distorts when it gets loud.|The sound is muffled.",
    ),
    "speed": (
        "Fast, no waiting.|Noticeably quicker than its predecessor.",
        "Slow, even on a good day.|Never comes near the speed on the box.",
    ),
    "stability": (
        "Stands like a rock.|No wobble even fully loaded.",
        "It wobbles on a perfectly flat floor.|Tips over too easily.",
    ),
    "stand": (
        "The stand goes low enough for my desk.|Does not tremble when I type.",
        "The stand shakes with every keystroke.|It cannot be lowered far enough.",
    ),
    "story": (
        "The ending took me by surprise.|Read it three nights in a row.|The characters stay with you.",
        "I guessed the ending on page forty.|The story goes nowhere.",
    ),
    "suction": (
        "Pulls everything out of the carpet.|More suction than I ever need.",
        "Pushes crumbs in front of itself.|Loses suction when half full.",
    ),
    "taste": (
        "Tastes wonderful, round and not bitter.|My new favourite flavour.|You taste the difference at once.",
        "Bitter, with a burnt note.|Tastes of almost nothing.",
    ),
    "texture": (
        "The texture is just right.|Melts away without a trace.",
        "A grainy texture.|Sticky and heavy.",
    ),
    "touch": (
        "The keys feel like the real thing.|You can play softly, and it answers.",
        "The keys are noisy and too light.|Two keys stick.",
    ),
    "tuning": (
        "Stays in tune for days.|In tune straight from the box.",
        "Out of tune after every song.|The tuners slip.",
    ),
    "value": (
        "Worth every cent.|Hard to find better for the money.|A fair price for what you get.",
        "Overpriced for what it does.|You pay for the name.|Not worth the money.",
    ),
    "warmth": (
        "Warm far below what they promise.|Kept me warm on a frosty night.",
        "I froze at plus five.|Not nearly as warm as stated.",
    ),
    "weather": (
        "Bone dry after two hours of rain.|Took a storm without complaint.",
        "Water came through the seams in the first shower.|Soaked within half an hour.",
    ),
    "weight": (
        "Pleasantly light.|The weight is just where it belongs.",
        "Heavier than stated, I weighed it.|Too heavy to hold for long.",
    ),
    "writing": (
        "Beautifully written.|A voice of its own, dry and funny.",
        "Clumsy sentences, or a clumsy translation.|Full of typing errors.",
    ),
    "writing_feel": (
        "Glides over the page.|Starts at the first touch, every time.",
        "Scratches and skips.|Dries out over a lunch break.",
    ),
    "zip": (
        "The zip runs smoothly with one hand.|Sturdy zips, nothing catches.",
        "The zip catches the lining every time.|The zip broke in the second week.",
    ),
}

#: What a review says before and after its aspects, by rating.
_TITLES: dict[int, str] = {
    5: "Could not be happier|Exactly what I wanted|Would buy again at once|A small joy every day|Better than expected",
    4: "Very good, with one catch|Happy with it|Good, not perfect|Recommended|Nearly there",
    3: "It is all right|Mixed feelings|Does the job|Neither good nor bad|Good idea, average result",
    2: "Expected more|Disappointed|Not for me|Would not buy again|Half a good product",
    1: "Sent it back|Keep your money|A waste of time|Never again|Broken promises",
}
_OPENINGS: dict[int, str] = {
    5: "Bought it for my sister and kept it.|Third one in the family.|I compared for weeks and chose well.|Have used it daily for two months.",
    4: "In use for six weeks now.|Bought after reading the other reviews.|A present to myself.|Replaces one that lasted ten years.",
    3: "I wanted to like it more.|Took it for a month before writing this.|For the price I had hoped for a little more.",
    2: "The photos promise more.|Gave it three chances.|I should have believed the other reviews.",
    1: "Did not last a week here.|Ordered twice, same result.|I rarely write reviews, but this one has to be.",
}
_CLOSINGS: dict[int, str] = {
    5: "Clear recommendation.|No complaints whatsoever.|Five stars without thinking.",
    4: "All in all I would choose it again.|One star off for that, the rest is fine.|I can live with it.",
    3: "Three stars it is.|Depends on what you need.|There are worse ones.",
    2: "Look elsewhere.|I am still looking for a better one.|Two stars for the friendly service.",
    1: "It went back the next day.|I want my money back.|Avoid.",
}
#: How many of an opinion's aspects please, by rating, out of how many are mentioned.
_BALANCE: dict[int, tuple[tuple[int, int], ...]] = {
    5: ((2, 2), (3, 3), (1, 1)),
    4: ((2, 3), (2, 2), (1, 1)),
    3: ((1, 2), (2, 3), (1, 3)),
    2: ((1, 3), (0, 1), (1, 2)),
    1: ((0, 2), (0, 3), (0, 1)),
}


def review_title(draw: Random, stars: int) -> str:
    """A headline that agrees with the stars."""
    return draw.choice(_TITLES[stars].split("|"))


def review_text(draw: Random, stars: int, aspects: Sequence[str], strengths: Sequence[float]) -> str:
    """Opinions about some of the kind's aspects. `strengths` (0..1, per aspect) tells which are good ones.

    The strongest aspects are those that please and the weakest those that do not, so that reviewers of one
    product agree on what is good about it; how many please follows from the stars.
    """
    pleased, mentioned = draw.choice(_BALANCE[stars])
    mentioned = min(mentioned, len(aspects))
    noisy = sorted(
        range(len(aspects)), key=lambda place: strengths[place] + draw.gauss(0, 0.15), reverse=True
    )
    good = noisy[:pleased]
    bad = [place for place in reversed(noisy) if place not in good][: max(0, mentioned - pleased)]
    opinions = [draw.choice(ASPECTS[aspects[place]][0].split("|")) for place in good]
    opinions += [draw.choice(ASPECTS[aspects[place]][1].split("|")) for place in bad]
    return _around(draw, stars, opinions)


def review_around(draw: Random, stars: int, opinions: Sequence[str]) -> tuple[str, str]:
    """Title and text of a review that says just these opinions, in the tone of its stars."""
    return review_title(draw, stars), _around(draw, stars, opinions)


def _around(draw: Random, stars: int, opinions: Sequence[str]) -> str:
    parts = []
    if draw.random() < 0.7:
        parts.append(draw.choice(_OPENINGS[stars].split("|")))
    parts += opinions
    if draw.random() < 0.5:
        parts.append(draw.choice(_CLOSINGS[stars].split("|")))
    return " ".join(parts)
