// What a budget buys, worked out in the page while the slider moves; the server answers the same when the form is sent.
const form = document.querySelector("[data-budget]");

function begin() {
  const data = JSON.parse(document.querySelector("#budget-data").textContent);
  const [range, number] = [form.querySelector("[type=range]"), form.querySelector("[name=budget]")];
  const whole = new Intl.NumberFormat(data.locale, { maximumFractionDigits: 0 });
  const money = [0, 2].map((digits) => new Intl.NumberFormat(data.locale, {
    style: "currency", currency: data.currency, minimumFractionDigits: digits, maximumFractionDigits: digits,
  }));
  const written = (spend) => (data.priced ? Math.round(spend * 100) / 100 : Math.round(spend));
  const sign = (value, text) => (value < 0 ? "−\u2060" : value > 0 ? "+\u2060" : "") + text;
  const plain = (value) => (data.priced ? money[Math.abs(value) >= 100 ? 0 : 1].format(value) : whole.format(value));

  function amount(value) {
    const size = Math.abs(value);
    if (data.unit === "money") return sign(value, money[size >= 100 ? 0 : 1].format(size));
    return sign(Math.round(value), whole.format(Math.round(size)));
  }
  const between = (limits) => data.between.replace(/\{(\d)\}/g, (_, place) => amount(limits[place]));

  function at(spend) {
    const later = data.points.findIndex((point) => point.spend >= spend);
    const after = data.points[later < 0 ? data.points.length - 1 : later];
    const before = data.points[Math.max((later < 0 ? data.points.length - 1 : later) - 1, 0)];
    const width = after.spend - before.spend;
    const part = width > 0 ? Math.min((spend - before.spend) / width, 1) : 0;
    const mix = (one, other) => one + part * (other - one);
    return {
      contacts: mix(before.contacts, after.contacts),
      expected: mix(before.expected, after.expected),
      realised: before.realised.map((value, place) => mix(value, after.realised[place])),
      users: Object.fromEntries(Object.keys(before.users).map((key) => [key, mix(before.users[key], after.users[key])])),
    };
  }

  function show(spend) {
    const here = at(spend);
    const texts = {
      spent: plain(data.priced ? spend : Math.round(spend)),
      contacts: whole.format(here.contacts),
      brought: between(here.realised),
      net: between(here.realised.map((value) => value - spend)),
      following: amount(at(Math.min(spend + data.next, Number(range.max))).expected - here.expected),
    };
    const list = document.querySelector("[data-list] [name=budget]");
    if (list) list.value = written(spend);
    for (const output of document.querySelectorAll("[data-show]")) output.textContent = texts[output.dataset.show];
    for (const cell of document.querySelectorAll("[data-users]")) {
      cell.textContent = whole.format(here.users[cell.dataset.users]);
    }
  }

  range.addEventListener("input", () => {
    number.value = written(range.value);
    number.removeAttribute("aria-invalid");
    show(Number(range.value));
  });
  number.addEventListener("input", () => {
    const wanted = Number(number.value.replaceAll(",", ""));
    if (!(number.value.trim() && wanted >= 0)) return;
    range.value = wanted;
    show(Math.min(wanted, Number(range.max)));
  });
}

if (form) begin();
