// The page of a rater: shows one pair at a time, and sends each vote at once. It is never told whose answers it shows.

const find = (id) => document.getElementById(id);
// The token stands behind the #, which a browser sends to nobody.
const authorization = `Bearer ${location.hash.slice(1)}`;

let due = null;
let isBusy = false;

async function ask(path, body) {
  const options = { headers: { Authorization: authorization } };
  if (body) Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The program does not answer. Start it again with the same command: all votes so far are stored.");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

function show(state) {
  due = state.pair;
  find("count").textContent = `${state.rater}: ${state.done} of ${state.total} pairs judged`;
  find("progress").max = state.total;
  find("progress").value = state.done;
  find("undo").disabled = state.done === 0;
  find("pair").hidden = !due;
  find("end").hidden = Boolean(due);
  if (!due) return find("end-title").focus();
  find("question").textContent = due.question;
  for (const [place, text] of [["first", due.answers[0]], ["second", due.answers[1]]]) {
    find(place).textContent = text.trim() ? text : "(empty answer)";
    find(place).classList.toggle("empty", !text.trim());
  }
  find("comment").value = due.comment;
  // Whoever listens hears the new question; whoever looks starts at its top.
  find("question-title").focus();
  scrollTo(0, 0);
}

/** Does one thing at a time: a key pressed twice is one vote. */
async function run(path, body, said) {
  if (isBusy) return;
  isBusy = true;
  try {
    const state = await ask(path, body);
    find("problem").hidden = true;
    show(state);
    find("status").textContent = said ? `${said} ${state.done} of ${state.total} pairs judged.` : "";
  } catch (error) {
    find("problem").textContent = error.message;
    find("problem").hidden = false;
  } finally {
    isBusy = false;
  }
}

const vote = (choice) => due && run("vote", { pair: due.key, choice, comment: find("comment").value.trim() }, "Vote stored.");
const undo = () => run("undo", {}, "Vote taken back.");

for (const button of document.querySelectorAll("[data-choice]")) {
  button.addEventListener("click", () => vote(button.dataset.choice));
}
find("undo").addEventListener("click", undo);

addEventListener("keydown", (event) => {
  if (event.key === "Escape" && event.target === find("comment")) return find("question-title").focus();
  if (event.target === find("comment") || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (!find("keys").checked) return;
  const key = event.key.toLowerCase();
  if (key === "c" && due) {
    event.preventDefault();
    return find("comment").focus();
  }
  const button = document.querySelector(`[data-key="${CSS.escape(key)}"]`);
  if (button && !button.disabled && (due || key === "u")) button.click();
});

run("state");
