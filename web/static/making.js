// The guided form while someone types: the audience's size, how texts look and how long they are. All is kept on the
// server as it is typed, so that the browser's own Back loses nothing.
const form = document.getElementById("making");
const GSM = /^[A-Za-z0-9 \n\r@£$¥èéùìòÇØøÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ!"#¤%&'()*+,\-./:;<=>?¡ÄÖÑÜ§¿äöñüà^{}\\[~\]|€]*$/;
let waiting;

async function keep() {
  waiting = undefined;
  try {
    const answer = await fetch(form.dataset.live, { method: "POST", body: new FormData(form) });
    if (!answer.ok || !answer.headers.get("Content-Type").startsWith("application/json")) return;
    const { size } = await answer.json();
    const shown = document.querySelector("[data-size]");
    if (size && shown && shown.textContent !== size) shown.textContent = size;
  } catch {
    // Offline: the button that sends the form will tell.
  }
}

function later() {
  clearTimeout(waiting);
  waiting = setTimeout(keep, 500);
}

function preview(arm) {
  const channel = document.getElementById("channel").value;
  const copy = arm.querySelector("textarea").value;
  const offer = arm.querySelector("input[name$=_offer]").value;
  const looks = arm.querySelector("[data-looks]");
  looks.className = `looks ${channel}`;
  const text = looks.querySelector("[data-copy]");
  if (text) text.textContent = copy;
  const gift = looks.querySelector("[data-offer]");
  if (gift) gift.textContent = offer.startsWith("{") ? "" : offer;
  const length = arm.querySelector("[data-length]");
  const digits = length.textContent.match(/\d[\d.,]*/);
  // The sentence is the server's; a number follows at once, the rest when the form is sent.
  if (digits) length.textContent = length.textContent.replace(digits[0], copy.trim().length.toLocaleString(document.documentElement.lang));
  const messages = length.textContent.match(/(\D)(\d+)(\D*SMS|\D*条短信)/);
  if (channel === "sms" && messages) {
    const [single, each] = GSM.test(copy) ? [160, 153] : [70, 67];
    const count = copy.length <= single ? 1 : Math.ceil(copy.length / each);
    length.textContent = length.textContent.replace(messages[0], `${messages[1]}${count}${messages[3]}`);
  }
}

if (form) {
  form.addEventListener("input", (event) => {
    later();
    const arm = event.target.closest("[data-arm]");
    if (arm) preview(arm);
    else if (event.target.id === "channel") document.querySelectorAll("[data-arm]").forEach(preview);
  });
  form.addEventListener("submit", () => clearTimeout(waiting));
  window.addEventListener("pagehide", () => {
    if (waiting !== undefined) {
      clearTimeout(waiting);
      navigator.sendBeacon(form.dataset.live, new FormData(form));
    }
  });
}
