// A client of the projects family in JavaScript: its WebSocket first, then the ingest whose progress it shows.
//
//     node --experimental-websocket examples/projects.mjs http://127.0.0.1:8000 github.com/o/r
//
// The flag is for Node 20; later ones have WebSocket without it. It sends no credential, as the family's
// clients do: the installation sets PHAROS_ANONYMOUS=default:editor.

const [base, repo] = process.argv.slice(2);
const ENDED = ['completed', 'failed', 'cancelled', 'skipped'];
const WAIT_MS = 300_000;

const ws = new WebSocket(`${base.replace('http', 'ws')}/ws`);
let jobId;
let seen = [];

ws.onopen = () => {
  ws.send(JSON.stringify({
    action: 'subscribe',
    project: 'default',
    topics: ['github:progress']
  }));
};

ws.onmessage = (event) => {
  const message = JSON.parse(event.data);
  if (message.type === 'subscribed') {
    ingest();
  }
  if (message.type === 'github:progress') {
    seen.push(message);
    tell();
  }
};

ws.onerror = () => finish('The WebSocket failed', 1);
setTimeout(() => finish('The job has not ended in time', 1), WAIT_MS).unref();

async function ingest() {
  const response = await fetch(`${base}/projects/default/ingest/github`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ repo, dataset: 'from-javascript', branch: 'main', scope: 'project' })
  });
  const data = await response.json();
  if (!response.ok) {
    return finish(data.detail, 1);
  }
  console.log('Queued:', data.jobId, data.repository);
  jobId = data.jobId;
  tell();
}

// Progress may be told before the answer says which job it is of.
function tell() {
  if (jobId === undefined) {
    return;
  }
  for (const { data } of seen.filter(message => message.data.jobId === jobId)) {
    console.log('Progress:', data.status, data.progress, data.phase, data.currentFile ?? '');
    if (ENDED.includes(data.status)) {
      finish(data.error ?? 'Done', data.status === 'completed' ? 0 : 1);
    }
  }
  seen = [];
}

function finish(word, code) {
  console.log(word);
  process.exitCode = code;
  ws.close();
}
