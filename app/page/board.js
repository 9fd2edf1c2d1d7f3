// The pedal board in the browser, which holds its pedals, in order, and acts on them at once. board.py has its other
// end. Texts of the server, such as names and trigger words, get into the page as text only, never as HTML.

const place = element.querySelector(".pedals"), empty = element.querySelector(".empty");
const template = element.querySelector("template"), prompt = () => document.querySelector("#prompt textarea");
const WORDS = 6;  // trigger words with a button, at most
const SAID = 4000;  // milliseconds
const KNOBS = {on: true, weight: 1, unet: "", text_encoder: "", blocks: "", start: "", stop: "", ramp: "", mask: ""};

let cards = [], model = "", known = false, questions = 0;
const masked = new Map();  // which card asked for the painted mask

// A new list with new pedals each time: Gradio reads them later.
const board = () => cards.map(card => ({...card.pedal}));
const tell = () => { if (known) props.value = board(); };

const order = () => {
  cards.forEach((card, index) => {
    card.find(".up").disabled = index === 0;
    card.find(".down").disabled = index === cards.length - 1;
  });
  empty.hidden = !known || cards.length > 0;
  tell();
};

const move = (card, by, button, back) => {
  const from = cards.indexOf(card), other = cards[from + by];
  [cards[from], cards[from + by]] = [other, card];
  // The other card is the one that is moved in the document, for a moved element loses the keyboard's focus.
  by < 0 ? card.node.after(other.node) : card.node.before(other.node);
  order();
  if (button.disabled) back.focus();
};

const remove = card => {
  const index = cards.indexOf(card);
  cards.splice(index, 1);
  card.node.remove();
  order();
  (cards[index] ?? cards.at(-1))?.find(".on").focus();
};

// The slider's step, or a finer one that divides the value: large enough for the arrow keys to move the slider.
const step = value => [0.05, 0.01, 0.001].find(step => Math.abs(value / step - Math.round(value / step)) < 1e-9) ?? 1e-6;

const wireWeight = card => {
  const {pedal, find} = card, number = find(".number"), range = find(".range"), first = pedal.weight;
  const name = `Weight of ${pedal.adapter}`;
  find(".weight label").textContent = name;
  find(".weight label").htmlFor = range.id = `range-${++questions}`;
  number.ariaLabel = `number input for ${name}`;
  range.ariaLabel = `range slider for ${name}`;
  find(".reset").ariaLabel = `Reset the weight of ${pedal.adapter}`;
  range.min = Math.min(-2, first);
  range.max = Math.max(2, first);
  const show = () => {
    range.step = number.step = step(pedal.weight);
    range.value = pedal.weight;
  };
  const set = value => {
    pedal.weight = Math.min(Math.max(value, Number(range.min)), Number(range.max));
    show();
    tell();
  };
  const write = () => { number.value = pedal.weight; };
  show();
  write();
  number.addEventListener("input", () => { if (Number.isFinite(number.valueAsNumber)) set(number.valueAsNumber); });
  number.addEventListener("change", write);  // no number, or one outside the range
  range.addEventListener("input", () => { pedal.weight = range.valueAsNumber; write(); tell(); });
  find(".reset").addEventListener("click", () => { set(first); write(); });
};

const wireMore = card => {
  const {pedal, find} = card, more = find(".more"), knobs = find(".knobs");
  more.textContent = knobs.ariaLabel = `More settings of ${pedal.adapter}`;
  more.addEventListener("click", () => {
    knobs.hidden = !knobs.hidden;
    more.ariaExpanded = String(!knobs.hidden);
  });
  for (const box of knobs.querySelectorAll("input")) {
    box.value = pedal[box.name];
    box.addEventListener("input", () => { pedal[box.name] = box.value; tell(); });
  }
  find(".take").addEventListener("click", () => {
    masked.set(++questions, card);
    trigger("mask", {question: questions});
  });
};

// Append a trigger word to the prompt, unless it has it already; words within tags do not count.
const insert = (card, word) => {
  const box = prompt(), literal = word.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"), said = card.find(".said");
  const there = new RegExp(`(?<![\\p{L}\\p{N}_])${literal}(?![\\p{L}\\p{N}_])`, "iu");
  if (there.test(box.value.replace(/<[^>]*>/g, " "))) {
    said.textContent = `${word} is already in the prompt`;
    said.hidden = false;
    setTimeout(() => { said.hidden = true; }, SAID);
    return;
  }
  const end = box.value.trimEnd().replace(/,+$/, "").length;
  box.setRangeText((box.value.trim() ? ", " : "") + word, end, box.value.length, "end");
  box.dispatchEvent(new Event("input", {bubbles: true}));
};

// What only the server knows: the adapter's picture, its trigger words, and why this model cannot use it.
const ask = async card => {
  const question = card.question = ++questions;
  let facts;
  try {
    facts = await server.adapter_facts({adapter: card.pedal.adapter, model});
  } catch {
    facts = {face: "", words: [], trouble: "the server did not say whether it can be used; reload the page"};
  }
  if (card.question !== question) return;
  const head = card.find(".pedal-head"), trouble = card.find(".trouble"), words = card.find(".words");
  card.find(".face")?.remove();
  if (facts.face)
    head.prepend(Object.assign(new Image(), {
      className: "face", alt: `Preview of ${card.pedal.adapter}`, src: facts.face,
    }));
  trouble.textContent = facts.trouble;
  trouble.hidden = !facts.trouble;
  words.hidden = !facts.words.length;
  words.replaceChildren(...facts.words.slice(0, WORDS).map(word => {
    const button = Object.assign(document.createElement("button"), {type: "button", textContent: word});
    button.addEventListener("click", () => insert(card, word));
    return button;
  }));
};

const make = pedal => {
  const node = template.content.firstElementChild.cloneNode(true), find = selector => node.querySelector(selector);
  const card = {node, find, pedal: {adapter: pedal.adapter}}, on = find(".on"), up = find(".up"), down = find(".down");
  for (const [name, value] of Object.entries(KNOBS)) card.pedal[name] = pedal[name] ?? value;
  find(".pedal-head span").textContent = pedal.adapter;
  on.checked = card.pedal.on;
  on.addEventListener("change", () => { card.pedal.on = on.checked; tell(); });
  up.textContent = `Move ${pedal.adapter} up`;
  up.addEventListener("click", () => move(card, -1, up, down));
  down.textContent = `Move ${pedal.adapter} down`;
  down.addEventListener("click", () => move(card, 1, down, up));
  find(".remove").textContent = `Remove ${pedal.adapter}`;
  find(".remove").addEventListener("click", () => remove(card));
  wireWeight(card);
  wireMore(card);
  return card;
};

const append = pedals => {
  const made = pedals.map(make);
  cards.push(...made);
  place.append(...made.map(card => card.node));
  order();
  made.forEach(ask);
};

// A whole board: the one that this browser remembers, a style, or that of a picture.
const receive = () => {
  const value = props.value;
  if (!Array.isArray(value) || known && JSON.stringify(value) === JSON.stringify(board())) return;
  const early = known ? [] : board();  // added before the remembered board arrived
  known = true;
  cards = [];
  place.replaceChildren();
  append([...value, ...early]);
};

const answer = () => {
  const {add, question, mask} = props.told ?? {};
  if (add) append([{adapter: add}]);
  const card = masked.get(question);
  if (!masked.delete(question) || !cards.includes(card)) return;
  card.pedal.mask = card.find("[name=mask]").value = mask;
  tell();
};

place.addEventListener("add", event => append([{adapter: event.detail}]));
place.addEventListener("model", event => {
  model = event.detail ?? "";
  cards.forEach(ask);
});
watch("value", receive);
watch("told", answer);
receive();
