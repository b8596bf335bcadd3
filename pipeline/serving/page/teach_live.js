// On the live page: wrong answers go back into the folder, with one click.
import { BACKGROUND, ask, keep, move, next_take, state } from "./teach_api.js";
import { make } from "./view.js";

const PLACE = "live", SECONDS = 2;
let known = await state(), rate = (await (await ask("GET", "/v1/model")).json()).rate;
const take = next_take(known, PLACE);
const classes = () => known.classes.map(({ label }) => label).filter((label) => label !== BACKGROUND);

function button(text, act) {
  const found = make("button", text, "quiet");
  found.onclick = async () => {
    found.disabled = true;
    await act(found).catch((error) => (found.title = found.textContent = error.message));
  };
  return found;
}

// An event that was none is background; then a choice tells what it was instead.
export function event(row, { label }, clip) {
  row.append(button("Wrong", async (wrong) => {
    let kept = await keep(await clip(), BACKGROUND, PLACE, take, rate);
    const choice = make("select");
    choice.ariaLabel = "What it was";
    choice.append(...[BACKGROUND, ...classes().filter((one) => one !== label)].map((one) => new Option(one === BACKGROUND ? "was nothing" : `was ${one}`, one)));
    choice.onchange = async () => (kept = await move(kept.label, kept.name, choice.value));
    wrong.replaceWith(choice);
  }));
}

// What was not heard is in the newest seconds.
export function missed(toolbar, newest) {
  toolbar.replaceChildren(make("span", `Missed, in the last ${SECONDS} s:`), ...classes().map((label) =>
    button(label, async (self) => {
      await keep(await newest(SECONDS), label, PLACE, take, rate);
      self.textContent = `${label} ✓`;
      setTimeout(() => Object.assign(self, { textContent: label, disabled: false }), 1500);
    })));
  toolbar.className = "missed";
}
