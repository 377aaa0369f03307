// A client of the batches family in JavaScript, for Node.js 22 or later.
//
//   node examples/batches.mjs http://127.0.0.1:8000 /path/below/a/root file1.md file2.md
//
// It sends no credential: the installation sets PHAROS_ANONYMOUS=default:editor, and admits the directory
// with PHAROS_LOCAL_ROOTS.

const USER = "user123";
const ENDED = ["completed", "failed", "cancelled"];

class BatchIngestionClient {
  constructor(baseUrl = "http://localhost:8001") {
    this.baseUrl = baseUrl;
    this.websocket = null;
  }

  async post(path, body) {
    const response = await fetch(`${this.baseUrl}${path}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.detail);
    return answer;
  }

  createJob(userId, name, fileSelections) {
    return this.post("/batch/jobs", { user_id: userId, name, file_selections: fileSelections });
  }

  async startJob(jobId, userId) {
    return (await this.post(`/batch/jobs/${jobId}/control`, { user_id: userId, action: "start" })).success;
  }

  async getJob(jobId, userId) {
    return (await fetch(`${this.baseUrl}/batch/jobs/${jobId}?user_id=${userId}`)).json();
  }

  connectWebSocket(userId, onMessage) {
    this.websocket = new WebSocket(`${this.baseUrl.replace("http", "ws")}/batch/ws/${userId}`);
    this.websocket.onmessage = (event) => onMessage(JSON.parse(event.data));
    this.websocket.onerror = (error) => console.error("WebSocket error:", error.message);
  }

  disconnect() {
    if (this.websocket) {
      this.websocket.close();
      this.websocket = null;
    }
  }
}

function show(job) {
  console.log(`Job progress: ${job.status} ${job.progress_percentage}%`);
  return ENDED.includes(job.status);
}

async function watched(client, jobId) {
  await new Promise((done) => {
    client.connectWebSocket(USER, (data) => {
      if (data.type === "job_update" && data.job.job_id === jobId && show(data.job)) done();
    });
    // What ended before the socket was open is not told there.
    client.getJob(jobId, USER).then((job) => ENDED.includes(job.status) && show(job) && done());
  });
}

const [base, directory, ...files] = process.argv.slice(2);
const client = new BatchIngestionClient(base);
const connection = await client.post("/connections", {
  source_type: "local_directory",
  config: { path: directory },
});
const job = await client.createJob(USER, "Test Job", [
  { connection_id: connection.id, source_type: "local_directory", file_ids: files },
]);
console.log("Created job:", job.job_id);
console.log("Job started:", await client.startJob(job.job_id, USER));
await watched(client, job.job_id);
client.disconnect();
const last = await client.getJob(job.job_id, USER);
for (const source of last.source_progress) {
  for (const file of source.files) console.log("File:", file.file_id, file.status, file.error ?? "");
}
process.exitCode = last.completed_files + last.skipped_files === last.total_files ? 0 : 1;
