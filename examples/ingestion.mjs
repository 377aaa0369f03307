// A client of the ingestion family, as a page in a browser has it: submit with retries, then watch the worker.
//
//     PHAROS_TOKEN=… node examples/ingestion.mjs http://127.0.0.1:8000 github.com/user/repo
//
// A page has an origin, an element and an alert; here they are these three.

const [base, repoUrl] = process.argv.slice(2);
const ENDED = ['complete', 'failed', 'skipped', 'cancelled'];
const POLL_MS = 2000;
const POLLS_MAX = 150;

const page = (path, options) => fetch(new URL(path, base), options);
const show = (text) => console.log(`Worker: ${text}`);
const alert = (text) => console.error(text);

async function submitRepository(repoUrl, token) {
  const response = await page(`/api/v1/ingestion/ingest/${repoUrl}`, {
    method: 'POST',
    headers: {
      'Authorization': `Bearer ${token}`
    }
  });

  if (response.status === 400) {
    throw new Error('Invalid repository URL');
  }
  if (response.status === 401) {
    throw new Error('Invalid authentication token');
  }
  if (response.status === 429) {
    const data = await response.json();
    throw new Error(data.detail);
  }
  if (response.status === 503) {
    throw new Error('Service temporarily unavailable');
  }
  if (!response.ok) {
    throw new Error(`HTTP ${response.status}`);
  }
  return await response.json();
}

async function submitWithRetry(repoUrl, token, maxRetries = 3) {
  for (let attempt = 1; attempt <= maxRetries; attempt++) {
    try {
      return await submitRepository(repoUrl, token);
    } catch (error) {
      if (attempt === maxRetries) {
        throw error;
      }
      // Exponential backoff
      const delay = Math.pow(2, attempt) * 1000;
      console.log(`Retry ${attempt}/${maxRetries} after ${delay}ms`);
      await new Promise(resolve => setTimeout(resolve, delay));
    }
  }
}

// Poll worker status, until the history knows how the job ended.
async function pollWorkerStatus(jobId) {
  for (let poll = 0; poll < POLLS_MAX; poll++) {
    const data = await (await page('/api/v1/ingestion/worker/status')).json();
    show(data.status);
    if (data.status.startsWith('Error') || data.status === 'Offline') {
      alert(`Worker status: ${data.status}`);
    }
    const { jobs } = await (await page('/api/v1/ingestion/jobs/history?limit=10')).json();
    const job = jobs.find(each => each.job_id === jobId);
    if (job && ENDED.includes(job.status)) {
      return job;
    }
    await new Promise(resolve => setTimeout(resolve, POLL_MS));
  }
  throw new Error('The job has not ended in time');
}

try {
  const queued = await submitWithRetry(repoUrl, process.env.PHAROS_TOKEN);
  console.log(`Job queued: ${queued.job_id}`);
  const job = await pollWorkerStatus(queued.job_id);
  console.log(`History: ${job.repo_url} ${job.status}`);
  process.exitCode = job.status === 'complete' ? 0 : 1;
} catch (error) {
  console.error('Ingestion error:', error.message);
  alert(`Failed to submit repository: ${error.message}`);
  process.exitCode = 1;
}
