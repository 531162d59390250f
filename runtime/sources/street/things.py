"""How each thing of the street is drawn."""

from __future__ import annotations

from vidseg.runtime.sources.street.canvas import NEAR_Z, Canvas, Pixel
from vidseg.runtime.sources.street.classes import BUILDING, CAR, PERSON, TREE
from vidseg.runtime.sources.street.world import FACADE_X, Building, Car, Color, Person, Thing, Tree

MIN_PERSON_SHARE = 0.075
"""Share of the picture's height below which nobody is drawn: smaller people have no labels a network could learn."""

MIN_CAR_SHARE = 0.034
WINDOW_REACH_M = 70.0
CAR_LENGTH_M = 4.3
GLASS: Color = (140, 120, 96)
RUBBER: Color = (28, 28, 28)
SKIN: Color = (120, 150, 200)


def draw_thing(canvas: Canvas, thing: Thing) -> None:
    """Draw a thing on picture and labels."""
    if isinstance(thing, Building):
        _draw_building(canvas, thing)
    elif isinstance(thing, Tree):
        _draw_tree(canvas, thing)
    elif isinstance(thing, Car):
        _draw_car(canvas, thing)
    else:
        _draw_person(canvas, thing)


def depth_order(thing: Thing) -> float:
    """Larger is drawn first."""
    return thing.z + thing.length if isinstance(thing, Building) else thing.z


def _draw_building(canvas: Canvas, house: Building) -> None:
    near, far = max(house.z, canvas.camera_z + NEAR_Z), house.z + house.length
    if far <= canvas.camera_z + NEAR_Z:
        return
    x, top, middle = house.x, house.height, (near + far) / 2
    back = x + (12 if x > 0 else -12)
    canvas.upright((x, back), (0, top), near, canvas.color(house.color, near, 0.72), BUILDING)
    shade = 1.0 if x > 0 else 0.86
    canvas.lengthwise(x, (0, top), (near, far), canvas.color(house.color, middle, shade), BUILDING)
    canvas.lengthwise(x, (top - 0.35, top), (near, far), canvas.color(house.color, middle, shade * 0.7), BUILDING)
    canvas.lengthwise(x, (0, 0.8), (near, far), canvas.color((95, 95, 98), middle, shade * 0.8), BUILDING)
    if middle - canvas.camera_z < WINDOW_REACH_M:
        _draw_windows(canvas, house, near)


def _draw_windows(canvas: Canvas, house: Building, near: float) -> None:
    floor_height, column_length = house.height / house.floors, house.length / house.columns
    for column in range(house.columns):
        start = house.z + (column + 0.28) * column_length
        end = start + 0.46 * column_length
        if end <= near + 0.2:
            continue
        start = max(start, near)
        dark, bright = canvas.color(GLASS, start, 0.62), canvas.color((150, 190, 215), start, 0.95)
        for floor in range(house.floors):
            lit = (column * 7 + floor * 13 + int(house.z)) % 5 == 0
            up = ((floor + 0.32) * floor_height, (floor + 0.8) * floor_height)
            canvas.lengthwise(house.x, up, (start, end), bright if lit else dark, BUILDING)


def _draw_tree(canvas: Canvas, tree: Tree) -> None:
    if tree.z - canvas.camera_z < 1.2:
        return
    scale = canvas.scale(tree.z)
    x, y = canvas.project(tree.x, 0, tree.z)
    shadow = canvas.color((58, 58, 60), tree.z)
    canvas.disc((x + 0.3 * scale, y), (1.7 * scale, 0.32 * scale * canvas.camera_height / 3), shadow, None)
    bark = canvas.color((52, 66, 84), tree.z)
    canvas.upright((tree.x - 0.16, tree.x + 0.16), (0, tree.trunk + 0.8), tree.z, bark, TREE)
    for across, up, radius, shade in tree.balls:
        center = canvas.project(tree.x + across, up, tree.z)
        canvas.disc(center, (radius * scale, radius * scale * 0.9), canvas.color(tree.color, tree.z, shade), TREE)


def _draw_car(canvas: Canvas, car: Car) -> None:
    if car.z - canvas.camera_z < 2.2 or car.height * canvas.scale(car.z) < MIN_CAR_SHARE * canvas.height:
        return
    belt, near, far = 0.58 * car.height, car.z, car.z + CAR_LENGTH_M
    left, right = car.x - 0.9, car.x + 0.9
    canvas.flat((left - 0.15, right + 0.15), (near - 0.2, far), canvas.color((38, 38, 40), near), None)
    side = left if car.x > canvas.camera_x else right
    canvas.lengthwise(side, (0.22, belt), (near, far), canvas.color(car.color, near, 0.74), CAR)
    _draw_cabin(canvas, car, side)
    canvas.upright((left, right), (0.22, belt), near, canvas.color(car.color, near, 0.95), CAR)
    _draw_pane(canvas, car)
    _draw_car_details(canvas, car, side)


def _draw_cabin(canvas: Canvas, car: Car, side: float) -> None:
    belt, top, near, far = 0.58 * car.height, car.height, car.z + 0.7, car.z + CAR_LENGTH_M - 1.1
    inset = 0.14 if side < car.x else -0.14
    glass = canvas.color(GLASS, car.z, 0.55)
    window = [(side, belt, car.z), (side, belt, far + 0.6), (side + inset, top, far), (side + inset, top, near)]
    canvas.quad(window, glass, CAR)
    left, right = car.x - 0.76, car.x + 0.76
    roof = canvas.color(car.color, car.z, 1.15)
    canvas.quad([(left, top, near), (right, top, near), (right, top, far), (left, top, far)], roof, CAR)


def _draw_pane(canvas: Canvas, car: Car) -> None:
    belt, top, near = 0.58 * car.height, car.height, car.z + 0.7
    corners = [
        (car.x - 0.9, belt, car.z),
        (car.x + 0.9, belt, car.z),
        (car.x + 0.76, top, near),
        (car.x - 0.76, top, near),
    ]
    canvas.quad(corners, canvas.color(GLASS, car.z, 0.72), CAR)


def _draw_car_details(canvas: Canvas, car: Car, side: float) -> None:
    scale, belt = canvas.scale(car.z), 0.58 * car.height
    rubber = canvas.color(RUBBER, car.z)
    for x in (car.x - 0.72, car.x + 0.72):
        canvas.upright((x - 0.13, x + 0.13), (0, 0.3), car.z, rubber, CAR)
    for z in (car.z + 0.75, car.z + 3.4):
        wheel = canvas.scale(z) * 0.31
        turned = abs(side - canvas.camera_x) / max(z - canvas.camera_z, 1.0)
        canvas.disc(canvas.project(side, 0.31, z), (wheel * min(turned, 1.0), wheel), rubber, CAR)
    lamp = canvas.color((225, 240, 250) if car.oncoming else (50, 45, 215), car.z, 1.1)
    for x in (car.x - 0.68, car.x + 0.68):
        canvas.disc(canvas.project(x, belt * 0.78, car.z), (0.15 * scale, 0.1 * scale), lamp, CAR)
    canvas.upright((car.x - 0.26, car.x + 0.26), (0.42, 0.54), car.z, canvas.color((200, 205, 205), car.z), CAR)


def _draw_person(canvas: Canvas, person: Person) -> None:
    tall = person.height * canvas.scale(person.z)
    if person.z - canvas.camera_z < 1.5 or tall < MIN_PERSON_SHARE * canvas.height or abs(person.x) > FACADE_X:
        return
    x, y = canvas.project(person.x, 0, person.z)
    canvas.disc((x + 0.1 * tall, y), (0.2 * tall, 0.03 * tall), canvas.color((50, 50, 52), person.z), None)
    trousers, shirt, skin = (canvas.color(base, person.z) for base in (person.trousers, person.shirt, SKIN))
    for leg in (-1, 1):
        hip = x + 0.03 * leg * tall
        foot = hip + person.stride * leg * 0.1 * tall
        canvas.polygon(_limb((hip, y - 0.5 * tall), (foot, y), 0.055 * tall), trousers, PERSON)
    canvas.disc((x, y - 0.66 * tall), (0.125 * tall, 0.21 * tall), shirt, PERSON)
    for arm in (-1, 1):
        shoulder = (x + arm * 0.115 * tall, y - 0.8 * tall)
        hand = (x + arm * 0.13 * tall - person.stride * arm * 0.08 * tall, y - 0.45 * tall)
        canvas.polygon(_limb(shoulder, hand, 0.035 * tall), shirt, PERSON)
    canvas.disc((x, y - 0.925 * tall), (0.062 * tall, 0.08 * tall), skin, PERSON)
    canvas.disc((x, y - 0.965 * tall), (0.06 * tall, 0.045 * tall), canvas.color((40, 50, 60), person.z), PERSON)


def _limb(top: Pixel, bottom: Pixel, half: float) -> list[Pixel]:
    return [
        (top[0] - half, top[1]),
        (top[0] + half, top[1]),
        (bottom[0] + half, bottom[1]),
        (bottom[0] - half, bottom[1]),
    ]
