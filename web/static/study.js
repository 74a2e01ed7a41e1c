// Watches what is under way: the piece of the page that tells how far it is, then the page with the answer.
const stateOf = (place) => place.querySelector("[data-state]");
const under = (place) => ["queued", "running"].includes(stateOf(place)?.dataset.state);

async function look(place) {
  const answer = await fetch(place.dataset.poll, { credentials: "same-origin" }).catch(() => null);
  if (answer?.ok && !answer.redirected) {
    const piece = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("[data-state]");
    if (piece) stateOf(place).replaceWith(piece);
  }
  if (under(place)) setTimeout(look, 2000, place);
  else location.reload();
}

for (const place of document.querySelectorAll("[data-poll]")) if (under(place)) setTimeout(look, 1000, place);
