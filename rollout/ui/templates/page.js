"use strict";

const REFRESH_MS = 2000, PATIENCE_MS = 30000;
const TOKEN = "kanaria-token", NAME = "kanaria-name"; // in this tab's storage, until the tab is closed
const NOT_A_TOKEN = "This is not a token of the controller.";
const dialog = document.getElementById("command");
const form = dialog.querySelector("form");
const part = (name) => dialog.querySelector(`[data-part="${name}"]`);
let chosen = null;

async function refresh() {
  try {
    const answer = await fetch("/", { signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(answer.status);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.title = fresh.title;
    const focused = document.activeElement?.dataset?.command;
    document.querySelector("main").replaceWith(fresh.querySelector("main"));
    if (focused) document.querySelector(`button[data-command="${CSS.escape(focused)}"]`)?.focus();
  } catch {
    document.getElementById("trouble").hidden = false;
  }
}

function ask(button) {
  chosen = button.dataset;
  form.reset();
  part("title").textContent = button.textContent.trim();
  part("effect").textContent = chosen.effect;
  part("command").textContent = chosen.command;
  part("send").textContent = button.textContent.trim();
  part("reason").hidden = chosen.name === "resume" || chosen.name === "promote";
  part("quarantine").hidden = chosen.name !== "restore";
  part("who").hidden = Boolean(sessionStorage.getItem(TOKEN));
  form.elements.token.required = !part("who").hidden;
  form.elements.by.value = sessionStorage.getItem(NAME) ?? "";
  fail("");
  dialog.showModal();
}

function fail(text) {
  part("error").textContent = text;
  part("error").hidden = !text;
}

function askForAnother() {
  const field = form.elements.token;
  sessionStorage.removeItem(TOKEN);
  part("who").hidden = false;
  field.required = true;
  field.value = "";
  field.focus();
}

async function send() {
  const fields = form.elements, isAsked = !part("who").hidden;
  const token = isAsked ? fields.token.value.trim() : sessionStorage.getItem(TOKEN);
  const by = isAsked ? fields.by.value.trim() : sessionStorage.getItem(NAME);
  const headers = new Headers({ "content-type": "application/json" });
  try {
    headers.set("authorization", `Bearer ${token}`);
  } catch { // a character that no header can hold
    askForAnother();
    fail(NOT_A_TOKEN);
    return;
  }
  const body = { by: by || "page", release: Number(chosen.release), phase: chosen.phase };
  if (fields.reason.value.trim() && !part("reason").hidden) body.reason = fields.reason.value.trim();
  if (chosen.name === "restore") Object.assign(body, { tag: chosen.tag, quarantine: fields.quarantine.checked });
  const path = chosen.name === "restore" ? "/api/restore" : `/api/commands/${chosen.name}`;
  const answer = await fetch(path, {
    method: "POST",
    headers,
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(PATIENCE_MS),
  });
  if (answer.ok) {
    sessionStorage.setItem(TOKEN, token);
    sessionStorage.setItem(NAME, by ?? "");
    dialog.close();
    await refresh();
    return;
  }
  const problem = await answer.json().catch(() => ({}));
  if (answer.status === 401 || answer.status === 403) askForAnother(); // another token may be enough
  if (answer.status === 401) {
    fail(NOT_A_TOKEN);
    return;
  }
  fail([problem.title ?? `The controller answered ${answer.status}`, problem.detail, problem.do].filter(Boolean).join(". "));
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-command]");
  if (button) ask(button);
});
part("cancel").addEventListener("click", () => dialog.close());
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  part("send").disabled = true;
  try {
    await send();
  } catch (error) {
    fail(`No answer from the controller (${error.name}). Look at the status before you try again.`);
  } finally {
    part("send").disabled = false;
  }
});
setInterval(refresh, REFRESH_MS);
